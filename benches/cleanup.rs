//! Selection of `vscode-cleanup`: one pass over a snapshot of a busy login node.
//!
//!     cargo bench --bench cleanup
//!
//! Of a hundred processes ten are in a server's tree, half of the trees orphaned; the others are
//! users' shells below their sshd, with an editor that has a server's file open.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vscode_shell_proxy::process_tree::{Id, Limits, Pid, Process, Stat, trees};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn process(pid: Pid, parent: Pid, exe: &str, args: &str) -> Process {
    Process {
        stat: Stat {
            id: Id {
                pid,
                start: pid.unsigned_abs().into(),
            },
            parent,
            group: pid,
            session: pid,
            state: b'S',
            threads: 1,
            is_kernel: false,
            cpu: 0,
        },
        comm: b"comm".to_vec(),
        uid: 1000 + pid.unsigned_abs() % 50,
        resident: 1 << 20,
        private: 1 << 19,
        exe: Some(exe.into()),
        cmdline: args.replace(' ', "\0").into_bytes(),
        cgroup: b"0::/user.slice/user-1000.slice/session-3.scope\n".to_vec(),
    }
}

fn snapshot(count: i32) -> Vec<Process> {
    let node = format!("/home/user/.vscode-server/bin/{COMMIT}/node");
    let main = format!("{node} /home/user/.vscode-server/bin/{COMMIT}/out/server-main.js ");
    let script = format!("sh /home/user/.vscode-server/bin/{COMMIT}/bin/code-server ");
    let mut processes = vec![process(1, 0, "/usr/lib/systemd/systemd", "init ")];
    for pid in 2..=count {
        // Each hundred begins with a login: sshd, its shell, and what the shell runs.
        let login = pid - pid % 100 + 2;
        processes.push(match pid % 100 {
            0 | 2 => process(pid, 1, "/usr/sbin/sshd", "sshd: user "),
            // A server: orphaned in every second hundred.
            10 if pid % 200 == 10 => process(pid, 1, "/usr/bin/dash", &script),
            10 => process(pid, login.min(pid - 1), "/usr/bin/dash", &script),
            11..20 => process(pid, pid - 1, &node, &main),
            _ => process(
                pid,
                login.min(pid - 1),
                "/usr/bin/vim",
                "vim /home/user/.vscode-server/data/Machine/settings.json ",
            ),
        });
    }
    processes
}

fn select(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select");
    for count in [10_000, 100_000] {
        let processes = snapshot(count);
        let limits = Limits {
            own: 5,
            now: 1 << 40,
            age: 1_000,
            ..Limits::default()
        };
        let orphans = trees(&processes, &limits)
            .iter()
            .filter(|tree| tree.spared.is_none())
            .count();
        assert_eq!(orphans, processes.len() / 200, "every second server");
        group.throughput(Throughput::Elements(processes.len() as u64));
        let id = BenchmarkId::from_parameter(count);
        group.bench_with_input(id, &processes, |bencher, processes| {
            bencher.iter(|| trees(black_box(processes), &limits));
        });
    }
    group.finish();
}

criterion_group!(benches, select);
criterion_main!(benches);
