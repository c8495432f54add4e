//! The cases on PostgreSQL, and what only PostgreSQL knows: trust, dialling, histories.

mod copied;
mod epochs;
mod hole;
mod locked;
mod naive;
mod outages;
mod pooler;
mod refusing;
mod rig;
mod rules;
mod secured;
mod server;
mod trust;

suite!(super::rig::PgRig);
