use super::*;

const SCOPE: &[u8] = b"0::/user.slice/user-1000.slice/session-3.scope\n";
const NODE: &str = "/home/a/.vscode-server/bin/x/node";

/// The relations of a process; its process group is its session.
pub(super) fn stat(pid: Pid, parent: Pid, start: Ticks, session: Pid) -> Stat {
    Stat {
        id: Id { pid, start },
        parent,
        group: session,
        session,
        state: b'S',
        threads: 1,
        is_kernel: false,
        cpu: 0,
    }
}

/// Alice's process, started at tick `pid` in session 90, whose leader is gone.
fn process(pid: Pid, parent: Pid, exe: &str) -> Process {
    Process {
        stat: stat(pid, parent, pid.unsigned_abs().into(), 90),
        comm: exe.rsplit('/').next().unwrap_or_default().into(),
        uid: 1000,
        resident: 1 << 20,
        private: 1 << 19,
        exe: Some(exe.into()),
        cmdline: format!("{exe}\0").into_bytes(),
        cgroup: SCOPE.to_vec(),
    }
}

fn init() -> Process {
    let mut init = process(1, 0, "/usr/lib/systemd/systemd");
    (init.stat.session, init.uid) = (1, 0);
    init
}

/// Root's view, long after everything was started.
fn limits() -> Limits {
    Limits {
        own: 9_999,
        now: 100_000,
        age: 1_000,
        ..Limits::default()
    }
}

/// Pids of each tree, and why it is spared.
fn found(processes: &[Process], limits: &Limits) -> Vec<(Vec<Pid>, Option<Spared>)> {
    let pids = |tree: &Tree| {
        let members = tree.members.iter();
        members.map(|&i| processes[i].stat.id.pid).collect()
    };
    let trees = trees(processes, limits);
    trees.iter().map(|tree| (pids(tree), tree.spared)).collect()
}

/// Why the only tree is spared.
fn spared(processes: &[Process], limits: &Limits) -> Option<Spared> {
    let found = found(processes, limits);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].1
}

#[test]
fn an_orphan_is_ended_with_everything_below_it() {
    let processes = [
        init(),
        process(50, 1, "/usr/bin/bash"),
        process(100, 1, NODE),
        process(101, 100, NODE),
        process(103, 101, "/usr/bin/bash"),
        process(104, 103, "/usr/bin/vim"),
        process(102, 100, "/usr/bin/git"),
    ];
    assert_eq!(
        found(&processes, &limits()),
        [(vec![100, 101, 103, 104, 102], None)]
    );
    assert_eq!(trees(&processes, &limits())[0].adopter, Some(1));
}

#[test]
fn two_servers_side_by_side_are_two_trees() {
    let processes = [init(), process(100, 1, NODE), process(101, 1, NODE)];
    assert_eq!(
        found(&processes, &limits()),
        [(vec![100], None), (vec![101], None)]
    );
}

#[test]
fn a_living_parent_is_no_adopter() {
    let mut processes = vec![
        init(),
        process(90, 1, "/usr/bin/tmux"),
        process(100, 90, NODE),
    ];
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    // It leads a session of its own, as anything in a pane does.
    processes[2].stat.session = 100;
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    let limits = Limits {
        include_attached: true,
        ..limits()
    };
    assert_eq!(spared(&processes, &limits), None);
}

#[test]
fn a_subreaper_is_known_by_measure_by_name_or_by_a_session_left_behind() {
    let mut processes = vec![
        init(),
        process(80, 1, "/opt/x/reaper"),
        process(100, 80, NODE),
    ];
    processes[1].stat.session = 90;
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    let measured = Limits {
        adopters: vec![80],
        ..limits()
    };
    assert_eq!(spared(&processes, &measured), None);
    // The server is in session 90, whose leader is gone; its parent is in another.
    processes[1].stat.session = 80;
    assert_eq!(spared(&processes, &limits()), None);
    // The leader lives: somebody is still logged in.
    processes.push(process(90, 1, "/usr/bin/bash"));
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    // Led from outside of the pid namespace: nobody knows whether by somebody alive.
    processes.pop();
    processes[2].stat.session = 0;
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    processes[1] = process(80, 1, "/usr/lib/systemd/systemd");
    assert_eq!(spared(&processes, &limits()), None);
}

#[test]
fn a_hidden_leader_or_parent_may_live() {
    // hidepid: neither pid 1 nor other users' processes are shown.
    let mut processes = vec![process(80, 1, "/opt/x/reaper"), process(100, 80, NODE)];
    processes[0].stat.session = 80;
    assert_eq!(spared(&processes, &limits()), Some(Spared::Parent));
    assert_eq!(
        spared(&[process(100, 70, NODE)], &limits()),
        Some(Spared::Parent)
    );
    // Below a pid namespace's edge.
    assert_eq!(
        spared(&[process(100, 0, NODE)], &limits()),
        Some(Spared::Parent)
    );
    // Nor is it enough that the parent which is not shown has an adopter's number.
    let adopter = Limits {
        adopters: vec![70],
        ..limits()
    };
    assert_eq!(
        spared(&[process(100, 70, NODE)], &adopter),
        Some(Spared::Parent)
    );
    // But pid 1 needs not be seen to be the parent.
    assert_eq!(spared(&[process(100, 1, NODE)], &limits()), None);
    // A measured adopter with a gap above it.
    let mut limits = limits();
    limits.adopters = vec![80];
    let processes = [process(80, 70, "/opt/x/reaper"), process(100, 80, NODE)];
    assert_eq!(spared(&processes, &limits), Some(Spared::Parent));
}

#[test]
fn below_a_living_ssh_session_nothing_is_orphaned() {
    let mut limits = limits();
    limits.adopters = vec![80];
    for daemon in ["/usr/sbin/sshd", "/usr/lib/ssh/sshd-session (deleted)"] {
        let processes = [
            init(),
            process(70, 1, daemon),
            process(80, 70, "/usr/bin/reaper"),
            process(100, 80, NODE),
        ];
        assert_eq!(
            spared(&processes, &limits),
            Some(Spared::Session),
            "{daemon}"
        );
    }
    // Where the executable is hidden, the name has to do.
    let mut sshd = process(70, 1, "/usr/sbin/sshd");
    sshd.exe = None;
    let processes = [
        init(),
        sshd,
        process(80, 70, "/x/r"),
        process(100, 80, NODE),
    ];
    assert_eq!(spared(&processes, &limits), Some(Spared::Session));
}

#[test]
fn a_service_is_there_on_purpose() {
    let mut server = process(100, 1, NODE);
    server.cgroup = b"0::/system.slice/vscode@a.service\n".to_vec();
    assert_eq!(spared(&[init(), server], &limits()), Some(Spared::Service));
}

#[test]
fn jobs_are_left_to_their_scheduler() {
    let mut server = process(100, 1, NODE);
    server.cgroup = b"0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n".to_vec();
    let lifted = Limits {
        include_jobs: true,
        ..limits()
    };
    let whole = [init(), server.clone()];
    assert_eq!(spared(&whole, &limits()), Some(Spared::Job));
    assert_eq!(spared(&whole, &lifted), None);
    // A tree that holds a job's process somewhere.
    (server.stat.id.pid, server.stat.parent) = (101, 100);
    let part = [init(), process(100, 1, NODE), server];
    assert_eq!(spared(&part, &limits()), Some(Spared::Job));
    // A step daemon above, without control groups.
    let without = [
        init(),
        process(80, 1, "/usr/sbin/slurmstepd"),
        process(100, 80, NODE),
    ];
    assert_eq!(spared(&without, &limits()), Some(Spared::Job));
}

#[test]
fn age_is_the_roots_on_the_boot_clock() {
    let processes = [init(), process(100, 1, NODE), process(60_000, 100, NODE)];
    let at = |now| Limits { now, ..limits() };
    assert_eq!(spared(&processes, &at(1_099)), Some(Spared::Young));
    assert_eq!(spared(&processes, &at(1_100)), None);
    // Started after the clock was read.
    assert_eq!(spared(&processes, &at(0)), Some(Spared::Young));
    let any = Limits { age: 0, ..at(0) };
    assert_eq!(spared(&processes, &any), None);
}

#[test]
fn other_users_are_left_alone() {
    let processes = [init(), process(100, 1, NODE)];
    let caller = |uid| Limits {
        caller: Some(uid),
        ..limits()
    };
    assert_eq!(spared(&processes, &caller(1000)), None);
    assert_eq!(spared(&processes, &caller(1001)), Some(Spared::User));
    let named = |users: &[u32]| Limits {
        users: users.to_vec(),
        ..limits()
    };
    assert_eq!(spared(&processes, &named(&[5, 1000])), None);
    assert_eq!(spared(&processes, &named(&[5])), Some(Spared::User));
    assert!(
        !Limits {
            users: vec![1001],
            ..caller(1000)
        }
        .permits(1001)
    );
}

#[test]
fn the_program_and_its_ancestors_are_never_touched() {
    let processes = [
        init(),
        process(100, 1, NODE),
        process(101, 100, "/usr/bin/bash"),
        process(102, 101, NODE),
        process(103, 1, NODE),
    ];
    let below = |own| Limits {
        own,
        include_attached: true,
        ..limits()
    };
    for own in [100, 101, 102] {
        assert_eq!(found(&processes, &below(own))[0].1, Some(Spared::Own));
        assert_eq!(found(&processes, &below(own))[1].1, None);
    }
}

#[test]
fn kernel_threads_zombies_and_the_first_process_are_no_servers() {
    let mut kernel = process(100, 2, NODE);
    kernel.stat.is_kernel = true;
    let mut zombie = process(101, 1, NODE);
    zombie.stat.state = b'Z';
    let first = process(1, 0, NODE);
    assert_eq!(found(&[first, kernel, zombie.clone()], &limits()), []);
    // A zombie in a tree is no member; one whose first thread alone is gone still is.
    (zombie.stat.id.pid, zombie.stat.parent) = (101, 100);
    let mut half = zombie.clone();
    (half.stat.id.pid, half.stat.threads) = (102, 4);
    let processes = [init(), process(100, 1, NODE), zombie, half];
    assert_eq!(found(&processes, &limits()), [(vec![100, 102], None)]);
}

#[test]
fn a_number_used_again_is_no_parent() {
    // While /proc was read, 70 ended and its number went to a younger process in a server's tree.
    let mut reused = process(70, 100, "/usr/bin/bash");
    reused.stat.id.start = 50_000;
    let mut innocent = process(200, 70, "/usr/bin/make");
    innocent.stat.id.start = 40_000;
    let processes = [init(), process(100, 1, NODE), reused, innocent];
    assert_eq!(found(&processes, &limits()), [(vec![100, 70], None)]);
}

#[test]
fn a_circle_in_a_torn_snapshot_is_no_tree_and_no_hang() {
    let mut first = process(100, 101, NODE);
    let mut second = process(101, 100, NODE);
    (first.stat.id.start, second.stat.id.start) = (5, 5);
    let limits = Limits {
        own: 100,
        ..limits()
    };
    assert_eq!(found(&[init(), first, second], &limits), []);
    let mut own_parent = process(100, 100, NODE);
    own_parent.stat.id.start = 5;
    assert_eq!(found(&[own_parent], &limits), []);
    assert_eq!(found(&[], &limits), []);
}

#[test]
fn patterns_mark_further_servers() {
    let processes = [init(), process(100, 1, "/opt/acme/bin/acme-server")];
    assert_eq!(found(&processes, &limits()), []);
    let limits = Limits {
        patterns: vec![b"acme-server".to_vec()],
        ..limits()
    };
    assert_eq!(found(&processes, &limits), [(vec![100], None)]);
}

#[test]
fn a_stopped_process_cannot_fork() {
    let mut stat = stat(100, 1, 50, 90);
    for (state, stopped) in [(b'T', true), (b't', true), (b'R', false), (b'Z', false)] {
        stat.state = state;
        assert_eq!(stat.is_stopped(), stopped, "{}", state as char);
    }
}

#[test]
fn each_reason_to_spare_a_tree_has_words_of_its_own() {
    let reasons = [
        Spared::Own,
        Spared::User,
        Spared::Job,
        Spared::Parent,
        Spared::Session,
        Spared::Service,
        Spared::Young,
        Spared::Attached,
        Spared::Unseen,
    ];
    let words: std::collections::HashSet<String> = reasons.iter().map(Spared::to_string).collect();
    assert_eq!(words.len(), reasons.len());
    assert!(!words.contains(""));
}
