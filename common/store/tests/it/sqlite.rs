//! The cases on files and in memory, and what only SQLite knows: one process per file, readers from outside,
//! a process that is killed.

mod crash;
mod full;
mod memory;
mod opening;
mod rig;
mod speed;

suite!(super::rig::FileRig);

mod in_memory {
    contract!(super::super::memory::MemoryRig);
}
