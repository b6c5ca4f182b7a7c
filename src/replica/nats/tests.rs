use std::time::Duration;

use async_nats::jetstream::stream::{Config, PersistenceMode, RetentionPolicy, StorageType};
use async_nats::{ClientError, Event};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::addresses::{addresses, check_name, user_and_password};
use super::replies::{Acknowledgement, parse, parse_if_any};
use super::stream::{config, differences};
use super::sync::{Syncing, read};
use super::{LogServer, NatsLog, NatsSettings, StreamPlan, nats_config};
use crate::log::{LogError, ReplicatedLog};

fn settings(server: String) -> NatsSettings {
    NatsSettings {
        servers: vec![server],
        credentials: None,
        root_certificates: None,
        stream: "kv".into(),
        connection_name: "test".into(),
        call_timeout: Duration::from_millis(200),
    }
}

/// A server that answers pings, and calls of which `answer` knows the subject. Tells the subjects
/// of all calls.
async fn server(answer: fn(&str) -> Option<&'static str>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(connection, answer, sender.clone()));
        }
    });
    (format!("nats://{address}"), receiver)
}

const INFO: &str = concat!(
    r#"INFO {"server_id":"x","server_name":"lone","version":"2.15.1","go":"","host":"","port":1,"#,
    r#""proto":1,"max_payload":1048576,"headers":true,"client_id":1}"#,
);

async fn serve(
    mut connection: tokio::net::TcpStream,
    answer: fn(&str) -> Option<&'static str>,
    calls: mpsc::UnboundedSender<String>,
) {
    let (input, mut output) = connection.split();
    let mut lines = BufReader::new(input).lines();
    output.write_all(format!("{INFO}\r\n").as_bytes()).await.unwrap();
    let mut reply_to = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<&str> = line.split(' ').collect();
        let text = match words.as_slice() {
            ["PING"] => "PONG\r\n".to_owned(),
            ["SUB", _, number] => {
                reply_to = Some((*number).to_owned());
                continue;
            }
            ["PUB", subject, inbox, _] | ["HPUB", subject, inbox, _, _] => {
                let _ = calls.send((*subject).to_owned());
                let (Some(body), Some(number)) = (answer(subject), &reply_to) else {
                    continue;
                };
                format!("MSG {inbox} {number} {}\r\n{body}\r\n", body.len())
            }
            _ => continue,
        };
        if output.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time_and_is_forgotten() {
    let (url, mut calls) = server(|_| None).await;
    let log = NatsLog::connect(&settings(url)).await.unwrap();
    log.connected().await;
    let result = log.publish("id", Bytes::from_static(b"entry")).await;
    let Err(LogError::Unavailable(why)) = result else {
        panic!("{result:?}");
    };
    assert!(
        why.contains("no answer within 200ms, asked through the server lone"),
        "{why}"
    );
    assert_eq!(calls.recv().await.unwrap(), "kv");
    assert_eq!(log.replies.waiting(), 0);
    assert!(matches!(log.bounds().await, Err(LogError::Unavailable(_))));
    assert!(matches!(log.read_from(1).await, Err(LogError::Unavailable(_))));
}

#[tokio::test]
async fn a_client_leaves_a_server_that_does_not_answer() {
    let (url, _calls) = server(|_| None).await;
    let log = NatsLog::connect(&NatsSettings {
        call_timeout: Duration::from_secs(60),
        ..settings(url)
    })
    .await
    .unwrap();
    let connects = || {
        log.client
            .statistics()
            .connects
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    // The caller has less patience than the log. Fails by never ending.
    while connects() < 2 {
        let ended = tokio::time::timeout(Duration::from_millis(100), log.bounds()).await;
        assert!(!matches!(ended, Ok(Ok(_))), "{ended:?}");
    }
}

#[tokio::test]
async fn nothing_is_queued_while_there_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let log = NatsLog::connect(&settings(format!("nats://{address}"))).await.unwrap();
    let publications = (0..200).map(|_| log.publish("id", Bytes::from_static(b"entry")));
    for result in futures_util::future::join_all(publications).await {
        assert!(matches!(result, Err(LogError::Unavailable(_))), "{result:?}");
    }
    assert_eq!(log.replies.waiting(), 0);
    // More calls than the client has room for, none of which it was given.
    assert!(
        tokio::time::timeout(Duration::from_secs(60), log.client.publish("x", Bytes::new()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn answers_become_positions_and_bounds() {
    let (url, _calls) = server(|subject| match subject {
        "kv" => Some(r#"{"stream":"kv","seq":7,"duplicate":true}"#),
        _ => Some(concat!(
            r#"{"config":{"name":"kv","retention":"limits","discard":"old","storage":"file","num_replicas":3},"#,
            r#""state":{"messages":0,"first_seq":8,"last_seq":7}}"#
        )),
    })
    .await;
    let log = NatsLog::connect(&NatsSettings {
        call_timeout: Duration::from_secs(60),
        ..settings(url)
    })
    .await
    .unwrap();
    assert_eq!(log.publish("id", Bytes::from_static(b"entry")).await, Ok(7));
    let bounds = log.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last, bounds.entries), (8, 7, 0));
    let long = log.publish("id", Bytes::from(vec![0; 1 << 20])).await;
    assert!(
        matches!(&long, Err(LogError::Refused(why)) if why.contains("max_payload")),
        "{long:?}"
    );
}

#[test]
fn errors_that_pass_are_told_from_those_that_last() {
    let with = |code: u16, err_code: u64| {
        let text = format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"no"}}}}"#);
        parse::<Acknowledgement>(text.as_bytes()).unwrap_err()
    };
    for (code, err_code) in [(503, 10_008), (500, 10_077), (408, 0), (429, 10_167), (409, 10_158)] {
        assert!(
            matches!(with(code, err_code), LogError::Unavailable(_)),
            "{code} {err_code}"
        );
    }
    for (code, err_code) in [(400, 10_060), (400, 10_054), (404, 10_059)] {
        assert!(
            matches!(with(code, err_code), LogError::Refused(_)),
            "{code} {err_code}"
        );
    }
    assert!(matches!(
        parse::<Acknowledgement>(b"\xff"),
        Err(LogError::Unavailable(_))
    ));
    assert!(matches!(parse::<Acknowledgement>(b"{}"), Err(LogError::Unavailable(_))));
    let none = parse_if_any::<Acknowledgement>(br#"{"error":{"code":404,"err_code":10059}}"#);
    assert!(matches!(none, Ok(None)), "{none:?}");
}

type Change = fn(&mut Config);

#[test]
fn every_setting_that_can_lose_entries_is_named() {
    let plan = StreamPlan::default();
    let good = config("kv", &plan);
    assert_eq!(differences(&good, "kv", &plan), Vec::<String>::new());
    let changes: [(&str, Change); 18] = [
        ("subjects", |config| config.subjects.push("other".into())),
        ("replicas", |config| config.num_replicas = 1),
        ("memory", |config| config.storage = StorageType::Memory),
        ("retention", |config| config.retention = RetentionPolicy::WorkQueue),
        ("keeps entries", |config| config.max_age = Duration::from_secs(60)),
        ("duplicate window", |config| {
            config.duplicate_window = Duration::from_secs(119)
        }),
        ("deny_delete", |config| config.deny_delete = false),
        ("max_msgs is", |config| config.max_messages = 9),
        ("max_msgs_per_subject", |config| config.max_messages_per_subject = 1),
        ("max_msg_size", |config| config.max_message_size = 1 << 19),
        ("no_ack", |config| config.no_ack = true),
        ("sealed", |config| config.sealed = true),
        ("allow_rollup_hdrs", |config| config.allow_rollup = true),
        ("allow_msg_ttl", |config| config.allow_message_ttl = true),
        ("allow_msg_counter", |config| config.allow_message_counter = true),
        ("mirror", |config| config.sources = Some(vec![Default::default()])),
        ("first_seq", |config| config.first_sequence = Some(5)),
        ("persist_mode", |config| {
            config.persist_mode = Some(PersistenceMode::Async)
        }),
    ];
    for (name, change) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let found = differences(&changed, "kv", &plan);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].contains(name), "{name}: {found:?}");
    }
}

#[test]
fn monitoring_tells_when_a_server_syncs() {
    let answer = |config: &str| {
        let body = format!(r#"{{"server_name":"n1","version":"2.15.1","jetstream":{{{config}}}}}"#);
        read(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes())
    };
    let always = answer(r#""config":{"sync_always":true,"sync_interval":120000000000}"#).unwrap();
    assert_eq!(always, ("n1 2.15.1".into(), Syncing::Always));
    let (_, lazy) = answer(r#""config":{"sync_interval":120000000000}"#).unwrap();
    assert_eq!(lazy, Syncing::Each(Duration::from_secs(120)));
    assert!(answer("").unwrap_err().contains("JetStream"));
    assert!(read(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap_err().contains("404"));
    assert!(read(b"\xff\xff").is_err());
}

#[test]
fn names_and_addresses_are_checked_and_passwords_not_repeated() {
    for name in ["", "a.b", "a b", "a*", "kv>", "ä"] {
        assert!(check_name(name).is_err(), "{name}");
    }
    assert!(check_name("kv-1_B").is_ok());
    assert!(addresses(&[]).is_err());
    let wrong = addresses(&["nats://a:1".into(), "ws://user:secret@b".into()])
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("server 2") && !wrong.contains("secret"), "{wrong}");
    let good = addresses(&["tls://user:secret@a".into(), "b".into()]).unwrap();
    assert!(good[0].tls_required() && !good[1].tls_required());
    let differ = user_and_password(&good).unwrap_err().to_string();
    assert!(differ.contains("same user") && !differ.contains("secret"), "{differ}");
    let user = |url: &str| user_and_password(&addresses(&[url.into()]).unwrap()).unwrap();
    assert_eq!(user("nats://a"), None);
    assert_eq!(
        user("nats://me:p%40ss%25zz%C3%A4%4@a"),
        Some(("me".into(), "p@ss%zzä%4".into()))
    );
}

#[test]
fn a_configuration_names_its_server_and_all_routes() {
    let server = |number: u8| LogServer {
        name: format!("log{number}"),
        host: format!("10.0.0.{number}"),
    };
    let servers = [server(1), server(2), server(3)];
    let text = nats_config(&servers, 1).unwrap();
    for part in [
        "server_name: \"log2\"",
        "listen: \"10.0.0.2:4222\"",
        "sync_interval: always",
        "tls://10.0.0.1:6222",
        "tls://10.0.0.3:6222",
        "verify: true",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(nats_config(&servers, 3).is_none());
}

#[test]
fn trouble_is_kept_until_there_is_a_connection_and_told_once() {
    let trouble = std::sync::Mutex::new(super::Trouble::default());
    let other = |text: &str| Event::ClientError(ClientError::Other(text.into()));
    for event in [
        Event::Disconnected,
        other("a"),
        other("b"),
        other("a"),
        Event::LameDuckMode,
    ] {
        super::hear(&trouble, &event);
    }
    let told = trouble.lock().unwrap().told.clone();
    assert_eq!(told.len(), 4, "{told:?}");
    let connection = trouble.lock().unwrap().connection.clone().unwrap();
    assert!(connection.ends_with('a'), "{connection}");
    super::hear(&trouble, &Event::Connected);
    let trouble = trouble.lock().unwrap();
    assert!(trouble.connection.is_none() && trouble.told.is_empty());
}
