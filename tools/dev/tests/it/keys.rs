//! One service's settings are no typing errors to another that shares its environment.

use std::collections::BTreeSet;

use sluice_service::config::{KNOWN_ANYWHERE, keys};

#[test]
fn all_keys_of_all_services_are_known_to_all() {
    let all: BTreeSet<String> = [
        keys::<sluice_gateway::config::Config>().unwrap(),
        keys::<sluice_logic::config::Config>().unwrap(),
        keys::<sluice_task::config::Config>().unwrap(),
        keys::<sluice_dev::ServeConfig>().unwrap(),
    ]
    .concat()
    .into_iter()
    .collect();
    let known: BTreeSet<String> = KNOWN_ANYWHERE.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(all, known, "common/service/src/config/known.rs lists the keys of all services");
}
