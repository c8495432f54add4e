//! A logic that an operator drains is asked only while nobody else serves, and answers whoever asks.

use std::time::Duration;

use sluice_cluster::{Cluster as _, Command, InstanceState, Service};
use sluice_proto::grpc::Outcome::Stored;
use tokio::time::timeout;

use super::rig::{call, faked, get, item, outcomes, publish};

#[tokio::test]
async fn a_drained_logic_is_listed_as_draining_answers_and_comes_back() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let operator = faked.neighbours.operator();
    let mut view = operator.view();
    let me = view.borrow().of(Service::Logic).next().unwrap().id.clone();
    for (key, command, state, status) in [
        ("a", Command::Drain, InstanceState::Draining, 503),
        ("b", Command::Undrain, InstanceState::Serving, 200),
    ] {
        operator.command(&me, command).await.unwrap();
        let listed = view.wait_for(|view| view.instances[&me].state == state);
        drop(timeout(Duration::from_secs(5), listed).await.expect("in time").unwrap());
        let (answered, said) = get(faked.rig.admin, "/readyz").await;
        assert_eq!((answered, said.contains("undrain")), (status, status == 503), "{said}");
        let reply = publish(&caller, call(vec![item("news", "ann", key, "1")])).await;
        assert_eq!(outcomes(&reply), [Stored]);
    }
    operator.command(&me, Command::Stop).await.unwrap();
    let report = faked.rig.stop().await;
    assert!(report.is_clean(), "{report:?}");
}
