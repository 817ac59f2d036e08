//! What a control group's path tells about a process: a scheduler's job, or a service.

/// Components by which schedulers name the groups of their jobs: one that begins with the first
/// text, and somewhere below it one that begins with the second. The daemons' own groups
/// (`slurmd.service`) lack the second.
const JOBS: [(&[u8], &[u8]); 6] = [
    // /slurm/uid_1000/job_7/step_0, /slurm_node1/…, /system.slice/slurmstepd.scope/job_7/…
    (b"slurm", b"job_"),
    // /pbs_jobs.service/jobid/7.server, /pbspro.slice/pbspro-7.server.slice
    (b"pbs", b""),
    // /lsf/cluster/job.7.1234.1699999999
    (b"lsf", b"job."),
    // /htcondor/condor_var_lib_condor_execute_slot1@node
    (b"htcondor", b""),
    // /UGE/7.1
    (b"UGE", b""),
    // /oar/alice_7
    (b"oar", b""),
];

/// Is the process in the group of a scheduler's job? `cgroup` is `/proc/PID/cgroup`.
pub(super) fn is_job(cgroup: &[u8]) -> bool {
    paths(cgroup).any(|(_, path)| {
        let components: Vec<&[u8]> = components(path).collect();
        JOBS.iter().any(|(above, below)| {
            let above = components.iter().position(|c| c.starts_with(above));
            above.is_some_and(|i| components[i + 1..].iter().any(|c| c.starts_with(below)))
        })
    })
}

/// Does systemd run the process as part of a service? The nearest unit counts, so that sessions
/// (`session-3.scope`) and what a user's manager starts for a desktop are none. Logins on a system
/// without `pam_systemd` stay in sshd's own service: that is none either.
pub(super) fn is_service(cgroup: &[u8]) -> bool {
    let path = paths(cgroup)
        .find(|(controllers, _)| *controllers == b"name=systemd")
        .or_else(|| paths(cgroup).find(|(controllers, _)| controllers.is_empty()));
    let unit = path.and_then(|(_, path)| {
        components(path)
            .filter(|c| c.ends_with(b".service") || c.ends_with(b".scope"))
            .last()
    });
    unit.is_some_and(|unit| {
        let hosts_logins = ["ssh", "dropbear", "user@"];
        unit.ends_with(b".service")
            && !hosts_logins
                .iter()
                .any(|name| unit.starts_with(name.as_bytes()))
    })
}

/// Controllers and path of each line `ID:CONTROLLERS:PATH`, cgroups(7).
fn paths(cgroup: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cgroup.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|c| !c.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_told_by_their_groups() {
        for (cgroup, expected) in [
            (
                "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
                true,
            ),
            (
                "9:name=systemd:/\n4:memory:/slurm/uid_1000/job_7/step_batch\n",
                true,
            ),
            ("4:memory:/slurm_node1/uid_1000/job_7/step_0\n", true),
            ("0::/system.slice/slurmd.service\n", false),
            ("0::/system.slice/slurmstepd.scope/system\n", false),
            ("0::/pbs_jobs.service/jobid/7.server\n", true),
            ("0::/system.slice/pbs.service\n", false),
            ("1:cpu:/lsf/cluster1/job.7.99.1\n", true),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", false),
            ("0::/user.slice/job_7\n", false),
            ("", false),
            (":::\n\n::", false),
        ] {
            assert_eq!(is_job(cgroup.as_bytes()), expected, "{cgroup}");
        }
    }

    #[test]
    fn services_are_told_by_the_nearest_unit() {
        for (cgroup, expected) in [
            ("0::/system.slice/code-server@alice.service\n", true),
            ("0::/system.slice/code-server.service/workers\n", true),
            ("1:name=systemd:/system.slice/x.service\n0::/\n", true),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/code-tunnel.service\n",
                true,
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-term-1.scope\n",
                false,
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
                false,
            ),
            ("0::/user.slice/user-1000.slice/user@1000.service\n", false),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", false),
            ("0::/system.slice/sshd.service\n", false),
            ("0::/system.slice/ssh.service\n", false),
            ("4:memory:/system.slice/x.service\n", false),
            ("0::/\n", false),
            ("", false),
        ] {
            assert_eq!(is_service(cgroup.as_bytes()), expected, "{cgroup}");
        }
    }
}
