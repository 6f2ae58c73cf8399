//! The outbound EVPN filter in bgpd, and what is remembered of it.

use super::all_failed;
use super::config::{BgpConfig, parse_bgp};
use super::push::{Push, failure};
use super::route_map::faults;
use super::run::{Daemon, Vtysh};
use super::script::{self, Job, Numbers, ROUTE_MAP};
use super::targets::{Targets, parse_targets};
use super::vtysh_output::Verdict;
use crate::host::{Error, RouteFailure};
use crate::model::frr::EvpnFilter;
use crate::model::types::{Time, Vni, VniRange};
use crate::sys::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Makes the changed filter count now and not only after bgpd's `route-map delay-timer` (5 s).
const CLEAR: &str = "clear bgp l2vpn evpn * soft out";
/// What an operator reads of a bgpd without an EVPN instance.
const NO_INSTANCE: &str = "there is no `router bgp AS` in its configuration: no VNI is advertised; add it as in \
                           frr.conf.example, or wait if FRR just starts";
/// How old the known route targets may get before they are looked at again after a claim.
const TARGETS_AGE: Duration = Duration::from_secs(30);
/// How soon to look again for the route targets of a VNI that bgpd does not know yet.
const TARGETS_RETRY: Duration = Duration::from_secs(1);

/// The filter.
#[derive(Debug)]
pub struct Filter {
    mode: EvpnFilter,
    range: VniRange,
    /// What bgpd's configuration said when it was last read.
    config: BgpConfig,
    /// The VNIs that are let out because they were claimed.
    shown: BTreeSet<Vni>,
    /// The lines in the list (or attempted), by VNI.
    listed: BTreeMap<Vni, String>,
    /// Which run of bgpd `listed` is about.
    listed_in: Option<u64>,
    /// Whether the filter has to be withdrawn as a whole before it is changed: it is out of shape, or holds
    /// what a new bgpd found in its startup configuration.
    stale: bool,
    /// Whether it was found open, so that bgpd may have sent what it does not take back.
    was_open: bool,
    targets: Targets,
    targets_read: Option<Time>,
    /// VNIs that were let out until the filter had to be emptied, and that the `frr` thread has not heard of yet.
    lost: BTreeSet<Vni>,
}

impl Filter {
    /// Nothing is known yet.
    pub fn new(mode: EvpnFilter, range: VniRange) -> Filter {
        Filter {
            mode,
            range,
            config: BgpConfig::default(),
            shown: BTreeSet::new(),
            listed: BTreeMap::new(),
            listed_in: None,
            stale: false,
            was_open: false,
            targets: Targets::default(),
            targets_read: None,
            lost: BTreeSet::new(),
        }
    }

    /// What in the operator's part of the configuration is not as wmgwd needs it.
    pub fn warnings(&self) -> Vec<String> {
        faults(&self.config)
            .into_iter()
            .map(|fault| format!("{ROUTE_MAP}: {}; remedy: {}", fault.text, fault.remedy))
            .collect()
    }

    /// The VNIs that are let out because they were claimed.
    pub fn shown(&self) -> &BTreeSet<Vni> {
        &self.shown
    }

    /// How it tells VNIs apart.
    pub fn mode(&self) -> EvpnFilter {
        self.mode
    }

    /// What is not in the configuration and must be.
    pub fn lacks(&self) -> Option<Error> {
        self.config.asn.is_none().then(|| Error::Refused {
            daemon: Daemon::Bgpd.name(),
            output: NO_INSTANCE.to_owned(),
        })
    }

    /// Whether bgpd gives up its own route for an address that it hears from another gateway.
    pub fn yields(&self) -> bool {
        self.config.yields
    }

    /// The AS number of the EVPN instance.
    pub fn asn(&self) -> Option<u32> {
        self.config.asn
    }

    /// The VNIs that are to be given to FRR again, since this was asked last.
    pub fn take_lost(&mut self) -> BTreeSet<Vni> {
        std::mem::take(&mut self.lost)
    }

    /// These are to be given to FRR again.
    pub fn lose(&mut self, vnis: impl IntoIterator<Item = Vni>) {
        self.lost.extend(vnis);
    }

    /// Empties the filter and brings it into shape. What was let out is told by [`Filter::take_lost`], whatever
    /// fails after this.
    fn reshape(&mut self, vtysh: &Vtysh, bgpd: Option<u64>) -> Result<(), Error> {
        let shown = self.shown.clone();
        self.withdraw(vtysh, bgpd, &BTreeSet::new(), &|| true)?;
        self.lost.extend(shown);
        Ok(())
    }

    /// Whether the filter was found open since this was asked last.
    pub fn take_was_open(&mut self) -> bool {
        std::mem::take(&mut self.was_open)
    }

    /// Takes every VNI but those in `keep` out of the filter, also what another run put there, and brings it into
    /// shape.
    ///
    /// # Errors
    /// What bgpd or vtysh said.
    pub fn withdraw(
        &mut self,
        vtysh: &Vtysh,
        bgpd: Option<u64>,
        keep: &BTreeSet<Vni>,
        permit: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.stale = true;
        self.read_config(vtysh, bgpd)?;
        self.was_open |= script::is_open(&self.config);
        let lines = script::withdraw_filter(&self.config, self.mode, keep);
        if !lines.is_empty() {
            let text = lines.join("\n") + "\n";
            let verdict = vtysh.feed(Daemon::Bgpd, &text, lines.len(), Some(permit))?;
            // Also after a refusal: the lines that were taken close something.
            vtysh.command(Daemon::Bgpd, CLEAR, None)?;
            if let Verdict::Refused { summary, .. } = verdict {
                return Err(Error::Refused {
                    daemon: Daemon::Bgpd.name(),
                    output: summary,
                });
            }
        }
        self.shown.retain(|vni| keep.contains(vni));
        self.listed.retain(|vni, _| keep.contains(vni));
        self.stale = false;
        Ok(())
    }

    /// Compares bgpd's configuration with what was claimed, and closes the filter if it is open. Returns
    /// the VNIs to claim or release again.
    ///
    /// # Errors
    /// What bgpd or vtysh said.
    pub fn drifted(
        &mut self,
        vtysh: &Vtysh,
        bgpd: Option<u64>,
        batch: usize,
        permit: &dyn Fn() -> bool,
    ) -> Result<BTreeSet<Vni>, Error> {
        let (shown, listed) = (self.shown.clone(), self.listed.clone());
        let same_run = self.listed_in.is_none() || self.listed_in == bgpd;
        self.read_config(vtysh, bgpd)?;
        let found = self.listed.clone();
        self.stale |= !same_run || !script::is_shaped(&self.config, self.mode);
        if self.stale {
            self.reshape(vtysh, bgpd)?;
            return Ok(self.take_lost());
        }
        if self.mode == EvpnFilter::List && !shown.is_empty() {
            let failures = self.follow_targets(vtysh, batch, permit);
            self.lost.extend(failures.iter().map(|failure| failure.vni));
        }
        let is_out: BTreeSet<Vni> = match self.mode {
            EvpnFilter::List => {
                let as_claimed = |vni: &&Vni| listed.get(vni) == found.get(vni);
                let (right, wrong): (BTreeSet<Vni>, BTreeSet<Vni>) =
                    found.keys().partition(as_claimed);
                right
                    .into_iter()
                    .chain(wrong.into_iter().filter(|vni| !shown.contains(vni)))
                    .collect()
            }
            EvpnFilter::Entries => Numbers::new(self.range, &self.config).vnis().collect(),
        };
        Ok(is_out.symmetric_difference(&shown).copied().collect())
    }

    /// Takes `vnis` out of the filter.
    pub fn release(
        &mut self,
        vtysh: &Vtysh,
        bgpd: Option<u64>,
        batch: usize,
        vnis: &[Vni],
    ) -> Vec<RouteFailure> {
        if vnis.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.prepare(vtysh, bgpd) {
            return all_failed(vnis.iter().copied(), &error);
        }
        self.take_out(vtysh, batch, vnis)
    }

    fn take_out(&mut self, vtysh: &Vtysh, batch: usize, vnis: &[Vni]) -> Vec<RouteFailure> {
        let jobs = match self.mode {
            EvpnFilter::List => self.list_releases(vnis),
            EvpnFilter::Entries => self.entry_releases(vnis),
        };
        let failures = self.push(vtysh, batch, &jobs, None);
        let failed: BTreeSet<Vni> = failures.iter().map(|failure| failure.vni).collect();
        for vni in vnis {
            self.shown.remove(vni);
            if !failed.contains(vni) {
                self.listed.remove(vni);
            }
        }
        failures
    }

    /// Lets `vnis` through the filter.
    pub fn claim(
        &mut self,
        vtysh: &Vtysh,
        bgpd: Option<u64>,
        batch: usize,
        vnis: &[Vni],
        permit: &dyn Fn() -> bool,
    ) -> Vec<RouteFailure> {
        if vnis.is_empty() {
            return Vec::new();
        }
        if !permit() {
            return all_failed(vnis.iter().copied(), &Error::NotPermitted);
        }
        let made = self.prepare(vtysh, bgpd).and_then(|()| match self.mode {
            EvpnFilter::List => self.list_claims(vtysh, vnis),
            EvpnFilter::Entries => self.entry_claims(vtysh, vnis),
        });
        let (jobs, mut failures) = match made {
            Ok(made) => made,
            Err(error) => return all_failed(vnis.iter().copied(), &error),
        };
        failures.extend(self.push(vtysh, batch, &jobs, Some(permit)));
        let failed: BTreeSet<Vni> = failures.iter().map(|failure| failure.vni).collect();
        self.shown
            .extend(vnis.iter().filter(|vni| !failed.contains(vni)));
        if self.mode == EvpnFilter::List && self.targets_older_than(TARGETS_AGE) {
            failures.extend(self.follow_targets(vtysh, batch, permit));
        }
        failures
    }

    /// Pushes `jobs` and makes them count.
    fn push(
        &self,
        vtysh: &Vtysh,
        batch: usize,
        jobs: &[Job],
        permit: Option<&dyn Fn() -> bool>,
    ) -> Vec<RouteFailure> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let push = Push {
            vtysh,
            daemon: Daemon::Bgpd,
            prologue: &script::shape(self.mode),
            batch,
            permit,
        };
        let mut failures = push.push(jobs);
        let failed: BTreeSet<Vni> = failures.iter().map(|failure| failure.vni).collect();
        let mut done = jobs
            .iter()
            .map(|job| job.vni)
            .filter(|vni| !failed.contains(vni))
            .peekable();
        if done.peek().is_some()
            && let Err(error) = vtysh.command(Daemon::Bgpd, CLEAR, permit)
        {
            failures.extend(all_failed(done, &error));
        }
        failures
    }

    fn list_releases(&self, vnis: &[Vni]) -> Vec<Job> {
        let job = |vni: &Vni| {
            let lines = vec![script::list_remove(*vni, self.listed.get(vni)?)];
            Some(Job { vni: *vni, lines })
        };
        vnis.iter().filter_map(job).collect()
    }

    fn list_claims(
        &mut self,
        vtysh: &Vtysh,
        vnis: &[Vni],
    ) -> Result<(Vec<Job>, Vec<RouteFailure>), Error> {
        let unknown = vnis.iter().any(|vni| !self.targets.knows(*vni));
        if unknown && self.targets_older_than(TARGETS_RETRY) {
            self.read_targets(vtysh)?;
        }
        let (mut jobs, mut failures) = (Vec::new(), Vec::new());
        for vni in vnis {
            match self.value(*vni) {
                Ok(value) => jobs.push(self.list(*vni, value)),
                Err(error) => failures.push(failure(*vni, error)),
            }
        }
        Ok((jobs, failures))
    }

    /// The job that puts `vni` into the list, remembered before it is tried: it may happen in part.
    fn list(&mut self, vni: Vni, value: String) -> Job {
        let permit = script::list_permit(vni, &value);
        let mut lines = Vec::new();
        if let Some(old) = self.listed.insert(vni, value.clone())
            && old != value
        {
            lines.push(script::list_remove(vni, &old));
        }
        lines.push(permit);
        Job { vni, lines }
    }

    fn refuse_layer3(&self, vni: Vni) -> Result<(), Error> {
        if !self.targets.is_layer3(vni) {
            return Ok(());
        }
        let daemon = Daemon::Bgpd.name();
        let output = format!(
            "VNI {vni} is an L3VNI: it is on the routes of every VNI of its VRF, so that they would be \
             advertised too; leave it out of --minvni to --maxvni"
        );
        Err(Error::Refused { daemon, output })
    }

    /// What the list has to say to let `vni` out, and no other VNI.
    fn value(&self, vni: Vni) -> Result<String, Error> {
        let daemon = Daemon::Bgpd.name();
        // Without an AS number there is no EVPN instance, hence nothing to advertise either.
        let targets = match self.config.asn {
            Some(asn) => self.targets.of(vni, asn),
            None => {
                let output = NO_INSTANCE.to_owned();
                return Err(Error::Refused { daemon, output });
            }
        };
        self.refuse_layer3(vni)?;
        match self.targets.also_carried_by(&targets, vni) {
            None => Ok(script::rt_value(&targets)),
            Some(other) => {
                let output = format!(
                    "VNI {other} exports all route targets of VNI {vni}, so they cannot be told apart: \
                     configure other route targets, or run with --evpn-filter entries"
                );
                Err(Error::Refused { daemon, output })
            }
        }
    }

    /// Looks whether the operator changed route targets. Lists the VNIs that are let out with the new ones, and
    /// withdraws a VNI whose targets do not tell it from another VNI any more.
    fn follow_targets(
        &mut self,
        vtysh: &Vtysh,
        batch: usize,
        permit: &dyn Fn() -> bool,
    ) -> Vec<RouteFailure> {
        // The claim holds; routes that could not be looked at now are looked at after the next claim.
        if let Err(error) = self.read_targets(vtysh) {
            log::warn!("cannot look for changed route targets: {error}");
            return Vec::new();
        }
        let known = self.listed.keys().filter(|vni| self.targets.knows(**vni));
        let vnis: Vec<Vni> = known.copied().collect();
        let (mut jobs, mut failures) = (Vec::new(), Vec::new());
        for vni in vnis {
            match self.value(vni) {
                Ok(value) if self.listed.get(&vni) != Some(&value) => {
                    log::info!("vni={vni} route targets are now: {value}");
                    jobs.push(self.list(vni, value));
                }
                Ok(_) => {}
                Err(error) => failures.push(failure(vni, error)),
            }
        }
        let mixed: Vec<Vni> = failures.iter().map(|it| it.vni).collect();
        failures.extend(self.take_out(vtysh, batch, &mixed));
        failures.extend(self.push(vtysh, batch, &jobs, Some(permit)));
        failures
    }

    fn entry_releases(&self, vnis: &[Vni]) -> Vec<Job> {
        let numbers = Numbers::new(self.range, &self.config);
        let jobs = vnis.iter().map(|vni| Job {
            vni: *vni,
            lines: numbers
                .of(*vni)
                .iter()
                .map(|seq| script::entry_remove(*seq, true))
                .collect(),
        });
        jobs.filter(|job| !job.lines.is_empty()).collect()
    }

    fn entry_claims(
        &mut self,
        vtysh: &Vtysh,
        vnis: &[Vni],
    ) -> Result<(Vec<Job>, Vec<RouteFailure>), Error> {
        if self.targets_older_than(TARGETS_AGE) {
            self.read_targets(vtysh)?;
        }
        let mut numbers = Numbers::new(self.range, &self.config);
        let (mut jobs, mut failures) = (Vec::new(), Vec::new());
        for vni in vnis {
            // `match evpn vni` compares each label of a route, and the L3VNI is the second of its VRF's type-2 routes.
            if let Err(error) = self.refuse_layer3(*vni) {
                failures.push(failure(*vni, error));
                continue;
            }
            match numbers.take(*vni) {
                Some(seq) => jobs.push(Job {
                    vni: *vni,
                    lines: script::entry_permit(seq, *vni),
                }),
                None => {
                    let daemon = Daemon::Bgpd.name();
                    let output = format!("{ROUTE_MAP} has no free entry left");
                    failures.push(failure(*vni, Error::Refused { daemon, output }));
                }
            }
        }
        Ok((jobs, failures))
    }

    /// Before every change: makes sure that the filter is in shape and that what is remembered of it is about the
    /// run of bgpd that is there now. A bgpd that was restarted starts with nothing withdrawn, or with what the
    /// operator saved.
    fn prepare(&mut self, vtysh: &Vtysh, bgpd: Option<u64>) -> Result<(), Error> {
        let same = bgpd.is_some() && self.listed_in == bgpd;
        if same && !self.stale && self.mode == EvpnFilter::List {
            return Ok(());
        }
        self.stale |= self.listed_in.is_some() && !same;
        self.read_config(vtysh, bgpd)?;
        self.stale |= !script::is_shaped(&self.config, self.mode);
        if self.stale {
            self.reshape(vtysh, bgpd)?;
            self.read_config(vtysh, bgpd)?;
        }
        Ok(())
    }

    fn read_config(&mut self, vtysh: &Vtysh, bgpd: Option<u64>) -> Result<(), Error> {
        let text = vtysh.show(Daemon::Bgpd, "show running-config")?;
        self.config = parse_bgp(&text);
        let listed = self.config.list.iter();
        self.listed = listed
            .filter_map(|(seq, value)| Some((Vni::new(*seq)?, value.clone())))
            .collect();
        self.listed_in = bgpd;
        Ok(())
    }

    fn targets_older_than(&self, age: Duration) -> bool {
        self.targets_read
            .is_none_or(|read| clock::now().since(read) > age)
    }

    /// # Errors
    /// Only if bgpd does not answer at all: without its word the derived targets are used.
    fn read_targets(&mut self, vtysh: &Vtysh) -> Result<(), Error> {
        let text = match vtysh.show(Daemon::Bgpd, "show bgp l2vpn evpn vni json") {
            Ok(text) => text,
            Err(Error::Refused { output, .. }) => output,
            Err(error) => return Err(error),
        };
        self.targets_read = Some(clock::now());
        match parse_targets(&text) {
            Ok(targets) => self.targets = targets,
            Err(text) => log::warn!("bgpd does not name route targets, using derived ones: {text}"),
        }
        Ok(())
    }
}
