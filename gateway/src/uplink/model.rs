//! Random schedules of the publish path against its promises. Tests only.
