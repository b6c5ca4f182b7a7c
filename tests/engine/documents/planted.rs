//! The table of `.ci/planted` and the lists of breakages agree, every suite has two breakages, and
//! every breakage has two suites or a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{source, tests_in};

/// Suites in which fewer than two breakages can be planted, and why.
const EXCEPTED: &[(&str, &str)] = &[
    ("documents", "it reads the documents and does not run the engine"),
    (
        "command::streams",
        "its only test moves a gibibyte twice, which is too slow for several breakages",
    ),
    (
        "command::replica",
        "without a log, commands only refuse; what a server on one does is tested where a simulated log can be had",
    ),
    (
        "golden",
        "its stores were written by an earlier version, and most breakages do not change what they show",
    ),
    (
        "sealing",
        "the second of its two tests can only hang, and a hanging test does not count as noticing",
    ),
];

/// Breakages that only one suite has to notice, and why no other would.
const OF_ONE_SUITE: &[(&str, &[&str])] = &[
    (
        "it is in what only a store opened for reading only does, beside a writer at one chosen moment",
        &[
            "LockWhileReading",
            "SkipCreated",
            "ReadWhatIsShortened",
            "TornTailIsDamage",
            "BelieveFirstLook",
            "TrustVanished",
            "ForgetCutTail",
            "ReadRingOnce",
        ],
    ),
    (
        "it is in one command of the program or one place of the server, which one suite tests",
        &[
            "StopAtWrong",
            "FollowBlobs",
            "IgnoreLogOfState",
            "IgnoreSignals",
            "GoOnAfterFailure",
            "RememberSignal",
            "ImportAnotherInput",
            "ImportCutOff",
            "ImportIntoOlderCopy",
            "TrustAnyCertificate",
            "RepeatConditionalPut",
            "OverwriteUnjudged",
            "TrustAnyAnswer",
            "DefaultTtlBeforeKeys",
            "ResumeAnotherExport",
            "ExportNoSettings",
            "ExportThePresent",
            "ImportByDefaultTtl",
            "AcceptLargeValues",
            "AnyBodyMemory",
            "AnyConnections",
            "AnySlowHead",
            "MemoryBeforeRights",
            "NoSparePlaces",
            "WaitForHeads",
            "ForgetNewLimit",
            "EndAtEmptyPage",
            "ListNoText",
            "DropRequests",
            "RefuseHead",
        ],
    ),
    (
        "it affects one call of the library, which one suite tests",
        &[
            "TakeLookForHolder",
            "VerifyAtOnce",
            "WaitForItself",
            "CloseHeldFiles",
            "ListWithoutGroup",
            "SweepUnderLooks",
            "LoseWakeup",
            "WaitInPoll",
            "ForgetAsyncSync",
            "ForgetWatchersAtClosing",
            "ViewUnwritten",
            "TrustRolledBackReads",
            "CreateBesideOthers",
            "StrangerBySystem",
            "NullForNumber",
            "LimitDeletes",
            "CreateOverSegments",
            "BuildOverStore",
            "SkipCopySync",
            "InspectTrustsSections",
            "SalvageByStranger",
            "SalvageDropped",
            "SalvageLock",
            "SalvageTorn",
            "SalvageUnlisted",
            "VerifyPassesSeals",
            "VerifyTakesDamageForTorn",
            "IgnoreLimit",
            "RefuseDeletes",
            "OpenExisting",
            "SayNothing",
            "IdleTooEarly",
            "SyncMemory",
            "DestroySegmentsFirst",
        ],
    ),
    (
        "it affects the order of errors, of which one suite has a table",
        &["InputFirst"],
    ),
    (
        "it takes a race of two threads, which only a test that holds one of them produces",
        &[
            "BatchInSteps",
            "ForgetSettled",
            "WriteBeforeSettled",
            "BeginUnsettled",
            "SealBeforeSettled",
            "TrustUnsettled",
            "TornLook",
            "ClaimUnsynced",
            "ForgetTakenOut",
            "ForgetHintsInHand",
            "SkipRollbackCheck",
            "ForgetPending",
            "ForgetMoved",
            "TrustRolledBack",
            "JudgeBeforeLock",
            "PassOvertaken",
            "TellOutOfOrder",
            "TellRolledBackExpiry",
            "CloseBesideRing",
        ],
    ),
    (
        "it takes another process, or a directory that changes under the store, which one suite has",
        &[
            "ServeForkedChild",
            "UnlockInChild",
            "WriteIntoRemoved",
            "CreateBesideStranger",
            "IndexBesideStranger",
            "PublishBesideStranger",
            "UnreadableIsAbsent",
        ],
    ),
    (
        "another check notices it first, except in the one test: the checksum of the manifest covers the store and its \
         generation, a failed sync anywhere in the directory is remembered, counters assert that nothing dies twice",
        &[
            "IgnoreIndexStore",
            "IgnoreIndexGeneration",
            "IgnoreIndexCounts",
            "SyncAgainAfterFailure",
        ],
    ),
    (
        "no other suite has an index file written with another hash",
        &["IgnoreHashProbe"],
    ),
    (
        "the devices of other suites do not fail like this: in a journal commit, or at a close",
        &["BelieveSyncs", "AskJournalOnce", "ForgetFailedClose"],
    ),
    (
        "it only costs time, memory or disk, which one suite measures",
        &[
            "SweepAtOnce",
            "KeepWrongIndexFile",
            "KeepDamagedForGood",
            "FailOnDoubt",
            "IgnoreRate",
            "DeletesTakeAll",
            "PileUp",
        ],
    ),
    (
        "it takes damage or a failure in a particular place before something else goes wrong, which chance does not find",
        &[
            "ForgetMark",
            "ForgetUnrecovered",
            "IgnoreSeals",
            "SkipSequenceGap",
            "CompactBesideDamage",
            "SalvageInAnyOrder",
            "CountRolledBack",
            "RunPendingAgain",
        ],
    ),
];

/// Rows of the table: breakage, suite, test, then optional settings.
fn rows(table: &str) -> Vec<[&str; 3]> {
    let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let mut words = row.split_whitespace();
        let named = [(); 3].map(|()| words.next().unwrap_or_else(|| panic!("not a row of the table: {row}")));
        assert!(words.all(is_setting), "only settings may follow the test: {row}");
        named
    })
    .collect()
}

fn is_setting(word: &str) -> bool {
    let setting = word.split_once('=');
    setting.is_some_and(|(name, value)| {
        let is_ours = name.starts_with("EMBERCASK_") || name == "PROPTEST_RNG_SEED";
        is_ours && !value.is_empty()
    })
}

/// All Rust files in a directory and below.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn tests_of(files: &[PathBuf]) -> BTreeSet<String> {
    let names = |file: &PathBuf| -> Vec<String> { tests_in(&source(file)).into_iter().map(str::to_owned).collect() };
    files.iter().flat_map(names).collect()
}

/// The breakages that a list declares.
fn breakages(list: &Path) -> BTreeSet<String> {
    let text = source(list);
    let (_, list) = text.split_once("\nbreakages! {\n").expect("the list of breakages");
    let lines = list.lines().take_while(|line| *line != "}").map(str::trim);
    let names = lines.filter_map(|line| line.strip_suffix(',').filter(|name| !name.contains(' ')));
    names.map(str::to_owned).collect()
}

/// The name of the suite in this file or directory.
fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The suite in this file, or in a directory with a `mod.rs`.
fn suite(path: &Path) -> Option<(String, BTreeSet<String>)> {
    let files = match path.join("mod.rs").exists() {
        true => sources(path),
        false if path.extension().is_some_and(|extension| extension == "rs") => vec![path.to_owned()],
        false => return None,
    };
    Some((name(path), tests_of(&files)))
}

/// Suites by name: each test target of the engine, or its modules if its `main.rs` has no tests;
/// each module of the command's; and the unit tests of both.
fn suites() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut suites = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let main = path.join("main.rs");
        if !main.exists() {
            suites.extend(suite(&path));
        } else if tests_in(&source(&main)).is_empty() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let path = entry.unwrap().path();
                let Some((name, tests)) = suite(&path).filter(|_| path != main) else {
                    continue;
                };
                assert!(
                    suites.insert(name, tests).is_none(),
                    "two suites share the name of {}",
                    path.display()
                );
            }
        } else {
            suites.insert(name(&path), tests_of(&sources(&path)));
        }
    }
    for entry in std::fs::read_dir(root.join("tests/command")).unwrap() {
        if let Some((module, tests)) = suite(&entry.unwrap().path()).filter(|(_, tests)| !tests.is_empty()) {
            suites.insert(format!("command::{module}"), tests);
        }
    }
    let of_command = |path: &PathBuf| path.starts_with(root.join("src/command"));
    let (command, library): (Vec<_>, Vec<_>) = sources(&root.join("src")).into_iter().partition(of_command);
    suites.insert("lib".to_owned(), tests_of(&library));
    suites.insert("command_lib".to_owned(), tests_of(&command));
    suites
}

#[test]
fn every_breakage_is_demanded_of_a_test_that_exists_and_every_suite_has_two() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("../../planted.table");
    let (rows, suites) = (rows(table), suites());
    let of_engine = breakages(&root.join("src/planted.rs"));
    let of_command = breakages(&root.join("src/command/planted.rs"));
    let twice: Vec<_> = of_engine.intersection(&of_command).collect();
    assert!(twice.is_empty(), "in both lists of breakages: {twice:?}");
    let all: BTreeSet<_> = of_engine.union(&of_command).cloned().collect();
    assert!(all.len() > 150 && all.contains("SkipDataSync"), "{all:?}");
    for [breakage, suite, test] in &rows {
        assert!(
            all.contains(*breakage),
            "the table names {breakage}, which is not a breakage"
        );
        let tests = suites
            .get(*suite)
            .unwrap_or_else(|| panic!("there is no suite {suite}"));
        assert!(tests.contains(*test), "{suite} has no test {test}");
    }
    let planted: BTreeSet<_> = rows.iter().map(|[breakage, ..]| (*breakage).to_owned()).collect();
    let idle: Vec<_> = all.difference(&planted).collect();
    assert!(idle.is_empty(), "without a test: {idle:?}");
    let of_one_suite: BTreeSet<_> = OF_ONE_SUITE.iter().flat_map(|(_, breakages)| *breakages).collect();
    for breakage in &planted {
        let suites: BTreeSet<_> = rows
            .iter()
            .filter(|[of, ..]| of == breakage)
            .map(|[_, suite, _]| suite)
            .collect();
        assert_eq!(
            suites.len() == 1,
            of_one_suite.contains(&breakage.as_str()),
            "{breakage} has the suites {suites:?}, but needs two or an entry in OF_ONE_SUITE"
        );
    }
    for breakage in of_one_suite {
        assert!(planted.contains(*breakage), "{breakage} is not a breakage");
    }
    let distinct: BTreeSet<_> = rows.iter().collect();
    assert_eq!(distinct.len(), rows.len(), "the table has a row twice");
    for (excepted, _) in EXCEPTED {
        assert!(
            suites.contains_key(*excepted),
            "{excepted} is excepted but is not a suite"
        );
    }
    for suite in suites.keys() {
        let demanded: BTreeSet<_> = rows
            .iter()
            .filter(|[_, of, _]| of == suite)
            .map(|[breakage, ..]| breakage)
            .collect();
        let is_excepted = EXCEPTED.iter().any(|(excepted, _)| excepted == suite);
        assert!(
            demanded.len() >= 2 || is_excepted,
            "{suite} must notice two breakages, but the table has {demanded:?}"
        );
    }
}
