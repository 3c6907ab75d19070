//! `cargo xtask plan`: lists the build jobs of a release, which can run on different machines.
//!
//! A job builds all emulators of a host and a version, which share about a quarter of their compiler time. The release
//! workflow in `.github` reads its jobs from here, so that it need not list hosts and versions. The plan depends only
//! on the data in `qemu-src`; nothing is built or downloaded.

use anyhow::Result;
use qemu_src::{QemuSrc, Release};
use qus_core::arch::{ARCHES, Arch, HOSTS, Host};
use qus_core::table::Table;
use serde::Serialize;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::output::{out, out_json};
use crate::bundle::hosts::HostArgs;

/// Print the build jobs of a release and their costs
///
/// With --json, `jobs` contains the data that a machine needs to run a job, and `cells` each host, version and target,
/// with its cost or the reason why it cannot be built. Costs are compiler seconds on one processor
/// (qemu-src/costs.toml).
#[derive(clap::Args)]
#[command(mut_arg("names", |arg| arg.help("Hosts, such as amd64,arm64v8 [default: all]")))]
pub(crate) struct Args {
    #[command(flatten)]
    hosts: HostArgs,
    /// Channels or versions of QEMU; 32-bit hosts always use the lts channel
    #[arg(long, value_name = "CHANNEL|VERSION", value_delimiter = ',', default_value = "default")]
    qemu: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Plan {
    /// The versions of the releases, as in `10.2.2-1`.
    releases: Vec<String>,
    jobs: Vec<Job>,
    cells: Vec<Cell>,
}

/// All emulators of a host and a version.
#[derive(Serialize)]
struct Job {
    /// Unique, and valid as a file name.
    name: String,
    host: &'static str,
    platform: String,
    qemu: String,
    targets: usize,
    /// Compiler seconds on one processor.
    seconds: u32,
    /// Arguments of `cargo xtask`.
    build: Vec<String>,
}

/// A combination of host, version and target, which may not be possible to build.
#[derive(Serialize)]
struct Cell {
    host: &'static str,
    qemu: String,
    target: &'static str,
    /// Compiler seconds on one processor for its own files; `None` if it cannot be built.
    seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let hosts = if args.hosts.is_given() { args.hosts.supported()? } else { HOSTS.iter().collect() };
    let plan = plan(&cx.data, &hosts, &args.qemu)?;
    if args.json {
        return out_json(&plan);
    }
    let mut table = Table::new(["job", "platform", "emulators", "compiler seconds"]);
    for job in plan.jobs {
        table.row([job.name, job.platform, job.targets.to_string(), job.seconds.to_string()]);
    }
    out(&table.to_string())
}

fn plan(data: &QemuSrc, hosts: &[&'static Host], requested: &[String]) -> Result<Plan> {
    let mut plan = Plan { releases: Vec::new(), jobs: Vec::new(), cells: Vec::new() };
    let narrow = data.release(&data.sources.narrow_hosts.channel).map_err(Usage)?;
    for name in requested {
        let wanted = data.release(name).map_err(Usage)?;
        plan.releases.push(wanted.release_version().to_string());
        for host in hosts {
            let release = if host.arch.registers_64_bit { wanted } else { narrow };
            let job = job(data, host, release);
            // 32-bit hosts use the same version for all requested ones.
            if !plan.jobs.iter().any(|other| other.name == job.name) {
                plan.cells.extend(ARCHES.iter().map(|arch| cell(data, host, release, arch)));
                plan.jobs.push(job);
            }
        }
    }
    Ok(plan)
}

fn job(data: &QemuSrc, host: &'static Host, release: &Release) -> Job {
    let qemu = release.version.to_string();
    let own = host.guests().map(|arch| data.costs.targets.get(arch).unwrap_or(&0));
    let build = ["build-qemu", "--all", "--host", host.name, "--qemu", &*qemu, "--profile", "release"];
    Job {
        name: format!("{host}-{qemu}"),
        host: host.name,
        platform: format!("linux/{}", host.platform),
        targets: host.guests().count(),
        seconds: data.costs.shared + own.sum::<u32>(),
        build: build.map(str::to_owned).into(),
        qemu,
    }
}

fn cell(data: &QemuSrc, host: &'static Host, release: &Release, arch: &'static Arch) -> Cell {
    let possible = host.can_emulate(arch);
    Cell {
        host: host.name,
        qemu: release.version.to_string(),
        target: arch.name,
        seconds: data.costs.targets.get(arch).copied().filter(|_| possible),
        why_not: host.check_emulates(&[arch]).err().map(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::release::ReleaseVersion;

    fn data() -> QemuSrc {
        Context::new().unwrap().data
    }

    fn jobs(requested: &[&str]) -> Vec<String> {
        let requested: Vec<_> = requested.iter().map(|name| (*name).to_owned()).collect();
        let plan = plan(&data(), &HOSTS.iter().collect::<Vec<_>>(), &requested).unwrap();
        assert_eq!(plan.cells.len(), plan.jobs.len() * ARCHES.len());
        assert_eq!(plan.releases.len(), requested.len());
        assert!(
            plan.releases.iter().all(|release| release.parse::<ReleaseVersion>().is_ok()),
            "{:?}",
            plan.releases
        );
        plan.jobs.into_iter().map(|job| job.name).collect()
    }

    #[test]
    fn every_emulator_has_a_cost_and_every_host_a_compiler() {
        let data = data();
        let costs: Vec<_> = data.costs.targets.iter().map(|(arch, _)| arch.name).collect();
        assert_eq!(costs, ARCHES.iter().map(|arch| arch.name).collect::<Vec<_>>());
        let compilers: Vec<_> = data.hosts.hosts.iter().map(|cross| cross.host.name).collect();
        assert_eq!(compilers, HOSTS.iter().map(|host| host.name).collect::<Vec<_>>());
    }

    #[test]
    fn narrow_hosts_have_only_the_lts_job() {
        let data = data();
        let version = |channel: &str| data.release(channel).unwrap().version.to_string();
        let jobs = jobs(&["default", "lts", "edge"]);
        let of = |host: &str| jobs.iter().filter(|job| job.starts_with(&format!("{host}-"))).count();
        assert_eq!((of("amd64"), of("i386")), (3, 1));
        assert!(jobs.contains(&format!("i386-{}", version("lts"))));
        assert!(jobs.contains(&format!("amd64-{}", version("edge"))));
    }

    #[test]
    fn impossible_cells_have_a_reason_and_no_cost() {
        let (data, host): (_, &Host) = (data(), "i386".parse().unwrap());
        let release = data.release("lts").unwrap();
        let cell = |arch: &str| cell(&data, host, release, arch.parse().unwrap());
        assert!(cell("aarch64").seconds.is_none() && cell("aarch64").why_not.is_some());
        assert!(cell("arm").seconds.is_some() && cell("arm").why_not.is_none());
    }
}
