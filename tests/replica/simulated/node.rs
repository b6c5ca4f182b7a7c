//! Nodes on tokio, in paused time, on the simulated log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embercask_replica::entry::{Body, Conditions, Entry, Header, Lifetime, Operation, Outcome, Tags};
use embercask_replica::node::Doing;
use embercask_replica::simulated::{Faults, SimulatedLog};
use embercask_replica::state::Misfit;
use embercask_replica::writer::WriteError;
use test_support::rng;
use tokio::time::{Instant, sleep};

use super::cluster::{CLUSTER, START_MS, etag, seed_store};
use super::members::{PATIENCE, check_equal, create, member, members, put, restarted};

#[tokio::test(start_paused = true)]
async fn what_one_node_writes_all_others_read() {
    let log = SimulatedLog::new(1, START_MS);
    let members = members(&log, 3);
    members[0].node.write(vec![create()]).await.expect("the log is there");
    let written = members[1]
        .node
        .write(vec![put("a", "1".into())])
        .await
        .expect("the log is there");
    assert_eq!(written.outcomes, [Outcome::Done { expiry_ms: None }]);
    // The node that was asked has applied it.
    assert_eq!(members[1].get("a").as_deref(), Some(&b"1"[..]));
    assert!(members[2].node.wait_for(written.position, PATIENCE).await);
    assert_eq!(members[2].get("a").as_deref(), Some(&b"1"[..]));
    assert!(
        !members[2]
            .node
            .wait_for(written.position + 100, Duration::from_millis(50))
            .await
    );

    let long = Bytes::from(vec![7; 2_000_000]);
    let written = members[2]
        .node
        .write(vec![put("long", long.clone())])
        .await
        .expect("the log is there");
    assert!(members[0].node.wait_for(written.position, PATIENCE).await);
    assert_eq!(members[0].get("long"), Some(long));
    for member in &members {
        member.until_ready().await;
        let status = member.node.status();
        assert_eq!((status.doing, status.held, status.missing), (Doing::Following, 0, 0));
        assert!(status.age < Duration::from_secs(2));
    }
    check_equal(&members).await;
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_by_beats_and_between_them() {
    let log = SimulatedLog::new(2, START_MS);
    let members = members(&log, 2);
    for member in &members {
        member.until_ready().await;
    }
    let (began, at_first) = (Instant::now(), members[0].node.now_ms());
    assert!(at_first >= START_MS);
    let mut last = at_first;
    while began.elapsed() < Duration::from_secs(30) {
        sleep(Duration::from_millis(70)).await;
        let now_ms = members[0].node.now_ms();
        assert!(now_ms >= last);
        let passed_ms = began.elapsed().as_millis() as u64;
        assert!(
            now_ms.abs_diff(at_first + passed_ms) < 500,
            "{now_ms} after {passed_ms}"
        );
        last = now_ms;
    }
    let entries = log.holds().last;
    assert!((20..60).contains(&entries), "{entries} beats in 30 s");
}

#[tokio::test(start_paused = true)]
async fn writes_survive_what_goes_wrong() {
    let mut random = rng();
    let log = SimulatedLog::new(random.next(), START_MS);
    let members = Arc::new(members(&log, 3));
    members[0].node.write(vec![create()]).await.expect("the log is there");
    log.set_faults(Faults::all(15));
    let clients = (0..6_usize).map(|client| {
        let members = members.clone();
        tokio::spawn(async move {
            let mut told = Vec::new();
            for number in 0..40 {
                let key = format!("{client}-{number}");
                let node = &members[(client + number) % 3].node;
                if node.write(vec![put(&key, key.clone().into())]).await.is_ok() {
                    told.push(key);
                }
            }
            told
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.expect("no client panics"));
    }
    log.set_faults(Faults::default());
    for member in members.iter() {
        member.until_ready().await;
    }
    members[0]
        .node
        .write(vec![put("last", "1".into())])
        .await
        .expect("the log is there");
    check_equal(&members).await;
    for key in &told {
        assert_eq!(members[0].get(key).as_deref(), Some(key.as_bytes()));
    }
    test_support::at_least(200, told.len() as u64, "acknowledged writes");
    let statuses = members.iter().map(|member| member.node.status());
    let readers: u64 = statuses
        .map(|status| status.gaps + status.damaged + status.failed)
        .sum();
    test_support::at_least(5, readers, "readers given up");
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_down_writes_fail_in_time_and_reads_go_on() {
    let log = SimulatedLog::new(3, START_MS);
    let members = members(&log, 2);
    let first = &members[0];
    first.node.write(vec![create()]).await.expect("the log is there");
    first
        .node
        .write(vec![put("a", "1".into())])
        .await
        .expect("the log is there");
    log.set_down(true);
    let began = Instant::now();
    let failed = first.node.write(vec![put("a", "2".into())]).await;
    assert_eq!(failed, Err(WriteError::TimedOut));
    assert!(
        began.elapsed() <= Duration::from_millis(10_100),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(first.get("a").as_deref(), Some(&b"1"[..]));
    first
        .until("unready", |member| member.node.status().not_ready.is_some())
        .await;

    log.set_down(false);
    let back = Instant::now();
    first
        .node
        .write(vec![put("a", "3".into())])
        .await
        .expect("the log is there");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    first.until_ready().await;
    check_equal(&members).await;
    assert_eq!(members[1].get("a").as_deref(), Some(&b"3"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_silent_or_damaged_copy_is_left_for_another() {
    let log = SimulatedLog::new(4, START_MS);
    let members = members(&log, 2);
    members[0].node.write(vec![create()]).await.expect("the log is there");
    let all = |of: u64| Faults {
        silent: if of == 0 { 1000 } else { 0 },
        damaged: if of == 1 { 1000 } else { 0 },
        gap: if of == 2 { 1000 } else { 0 },
        ..Faults::default()
    };
    for of in 0..3 {
        log.set_faults(all(of));
        let write = members[0].node.write(vec![put("a", of.to_string().into())]);
        let (written, ()) = tokio::join!(write, async {
            sleep(Duration::from_secs(3)).await;
            log.set_faults(Faults::default());
        });
        written.expect("another reader finds it");
        for member in &members {
            member.until_ready().await;
        }
        check_equal(&members).await;
    }
    let status = members[0].node.status();
    assert!(status.gaps > 0 && status.damaged > 0 && status.failed > 0, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_fit_is_refused_and_told() {
    let log = SimulatedLog::new(5, START_MS);
    let members = members(&log, 1);
    let first = &members[0];
    first.node.write(vec![create()]).await.expect("the log is there");
    first
        .node
        .write(vec![put("a", "1".into())])
        .await
        .expect("the log is there");
    let last = log.holds().last;
    log.truncate(last);

    let late = member(&log, seed_store(9));
    late.until("refused", |member| member.node.status().misfit.is_some())
        .await;
    let status = late.node.status();
    let misfit = status.misfit.expect("it is refused");
    assert!(matches!(misfit, Misfit::Behind { next: 1, .. }));
    assert_eq!(status.not_ready, Some(misfit.to_string()));
    assert_eq!(status.position, 0);

    let position = first.node.position();
    first.node.stop().await;
    log.shorten(position);
    let again = restarted(&log, members);
    again
        .until("refused", |member| member.node.status().misfit.is_some())
        .await;
    assert!(matches!(again.node.status().misfit, Some(Misfit::Ahead { .. })));
    assert_eq!(again.get("a").as_deref(), Some(&b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_answers_all_and_frees_its_store() {
    let log = SimulatedLog::new(6, START_MS);
    let members = members(&log, 1);
    members[0].node.write(vec![create()]).await.expect("the log is there");
    log.set_down(true);
    let node = members[0].node.clone();
    let waiting = tokio::spawn(async move { node.write(vec![put("a", "1".into())]).await });
    members[0].until("held", |member| member.node.status().held == 1).await;
    members[0].node.stop().await;
    assert_eq!(waiting.await.expect("it does not panic"), Err(WriteError::Stopped));
    let after = members[0].node.write(vec![put("a", "1".into())]).await;
    assert_eq!(after, Err(WriteError::Stopped));
    assert_eq!(members[0].node.status().doing, Doing::Stopped);
    members[0].node.stop().await;

    log.set_down(false);
    let again = restarted(&log, members);
    again
        .node
        .write(vec![put("b", "1".into())])
        .await
        .expect("the log is there");
    assert_eq!(again.get("b").as_deref(), Some(&b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_hours_without_entries_writes_at_once() {
    let log = SimulatedLog::new(7, START_MS);
    let members = members(&log, 1);
    members[0].node.write(vec![create()]).await.expect("the log is there");
    members[0].node.stop().await;
    log.advance(5 * 3_600_000);
    let again = restarted(&log, members);
    let began = Instant::now();
    again
        .node
        .write(vec![put("a", "1".into())])
        .await
        .expect("it knows what time it is");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(again.node.now_ms() >= START_MS + 5 * 3_600_000);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_others_contradict_is_not_ready() {
    let log = SimulatedLog::new(8, START_MS);
    let members = members(&log, 1);
    members[0].node.write(vec![create()]).await.expect("the log is there");
    members[0].until_ready().await;
    let position = members[0].node.position();
    let header = Header {
        cluster: CLUSTER,
        writer: 77,
        counter: 1,
        sent_ms: members[0].node.now_ms(),
    };
    let digest = [9; 16];
    let body = Body::Beat { position, digest };
    let beat = (Entry { header, body }).encode().expect("it is short");
    log.send(1, "stranger-1", beat);
    members[0]
        .until("contradicted", |member| member.node.status().disagrees)
        .await;
    assert!(members[0].node.status().not_ready.is_some());
    // It is forgotten when nothing is heard of that one for long.
    members[0].until_ready().await;
}

#[tokio::test(start_paused = true)]
async fn counters_by_if_match_are_exact() {
    let log = SimulatedLog::new(10, START_MS);
    let members = Arc::new(members(&log, 3));
    members[0].node.write(vec![create()]).await.expect("the log is there");
    members[0]
        .node
        .write(vec![put("n", "0".into())])
        .await
        .expect("the log is there");
    let clients = (0..6_usize).map(|client| {
        let members = members.clone();
        tokio::spawn(async move {
            let mut steps = 0;
            while steps < 10 {
                let member = &members[client % 3];
                let Some(found) = member.get("n") else {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let number: u64 = String::from_utf8_lossy(&found).parse().expect("it is a number");
                let Operation::Put { namespace, key, .. } = put("n", Bytes::new()) else {
                    unreachable!("it is a put");
                };
                let tag = etag(&found, None, None);
                let step = Operation::Put {
                    namespace,
                    key,
                    value: (number + 1).to_string().into(),
                    metadata: None,
                    lifetime: Lifetime::Forever,
                    conditions: Conditions {
                        if_match: Some(Tags::These(vec![tag])),
                        if_none_match: None,
                    },
                };
                let written = member.node.write(vec![step]).await.expect("the log is there");
                steps += u64::from(matches!(written.outcomes[..], [Outcome::Done { .. }]));
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.await.expect("no client panics");
    }
    check_equal(&members).await;
    assert_eq!(members[0].get("n").as_deref(), Some(&b"60"[..]));
}
