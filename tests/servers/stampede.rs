//! Many callers in many processes, one cold key, one load.

use crinkle_testkit::redis::RedisServer;

use crate::node::Node;

const PROCESSES: usize = 4;
const CALLERS: usize = 2_500;

#[test]
fn ten_thousand_callers_in_four_processes_make_one_factory_call() {
    let server = RedisServer::start();
    let mut nodes: Vec<_> = (0..PROCESSES).map(|_| Node::start(&server.app_url())).collect();
    for round in 0..3 {
        for (id, node) in nodes.iter_mut().enumerate() {
            node.send(&format!("crowd cold{round} {CALLERS} {id}"));
        }
        let replies: Vec<_> = nodes.iter_mut().map(Node::reply).collect();
        let (calls, values): (Vec<usize>, Vec<&str>) = replies
            .iter()
            .map(|reply| {
                let (calls, value) = reply.split_once(' ').expect("calls and value");
                (calls.parse::<usize>().expect("a number"), value)
            })
            .unzip();
        assert_eq!(calls.iter().sum::<usize>(), 1, "{replies:?}");
        assert!(values.iter().all(|value| *value == values[0]), "{replies:?}");
    }
}
