//! Makes the two lanes to a host: of this machine, or of its mock.

use super::frr::{Frr, FrrConfig};
use super::links::Bridges;
use super::mock::{MIRROR_VARIABLE, Mock};
use super::proc::ProcKernel;
use super::routes::{RouteBook, Routes};
use super::signs::{SignReader, Source, Tracked};
use super::{Announce, Error, Kernel, Router};
use crate::Failure;
use crate::model::frr::EvpnFilter;
use crate::model::types::{Vni, VniRange};
use crate::telemetry::metrics::Metrics;
use std::path::Path;
use std::sync::Arc;

/// The lanes to a host: real, or mock.
#[derive(Clone)]
pub enum HostFactory {
    /// The kernel and FRR of this machine.
    Real {
        /// The VNIs that it serves.
        range: VniRange,
        /// How `filter-vni` tells VNIs apart.
        filter: EvpnFilter,
        /// Where the runs of vtysh are counted.
        metrics: Arc<Metrics>,
        /// Its bridges.
        bridges: Bridges,
        /// How VNIs are announced upstream.
        announce: Announce,
        /// The kernel routes that announce them.
        book: RouteBook,
    },
    /// None of it.
    Mock(Mock),
}

impl HostFactory {
    /// The host of this machine, or its mock.
    ///
    /// # Errors
    /// The mock cannot be made.
    pub fn open(
        mock: bool,
        range: VniRange,
        filter: EvpnFilter,
        announce: Announce,
    ) -> Result<HostFactory, Failure> {
        Ok(if mock {
            HostFactory::Mock(Mock::new(range)?)
        } else {
            HostFactory::Real {
                range,
                filter,
                metrics: Arc::default(),
                bridges: Bridges::default(),
                announce,
                book: RouteBook::default(),
            }
        })
    }

    /// The host, counting in `metrics` what FRR is asked to do.
    pub fn counting(self, metrics: &Arc<Metrics>) -> HostFactory {
        match self {
            HostFactory::Real {
                range,
                filter,
                bridges,
                announce,
                book,
                ..
            } => HostFactory::Real {
                range,
                filter,
                metrics: metrics.clone(),
                bridges,
                announce,
                book,
            },
            mock @ HostFactory::Mock(_) => mock,
        }
    }

    /// The kernel's part.
    pub fn kernel(&self) -> Box<dyn Kernel> {
        match self {
            HostFactory::Real {
                range,
                bridges,
                announce,
                book,
                ..
            } => {
                let kernel = ProcKernel::with(bridges.clone());
                let routes = || Routes::new(*range, bridges.clone(), book.clone());
                Box::new(match announce {
                    Announce::Routes => kernel.announcing(routes()),
                    Announce::Costs => kernel,
                })
            }
            HostFactory::Mock(mock) => Box::new(mock.clone()),
        }
    }

    /// FRR's part.
    pub fn router(&self) -> Box<dyn Router> {
        match self {
            HostFactory::Real {
                range,
                filter,
                metrics,
                bridges,
                announce,
                book,
            } => Box::new(Frr::new(FrrConfig {
                filter: *filter,
                metrics: metrics.clone(),
                announce: *announce,
                bridges: bridges.clone(),
                book: book.clone(),
                ..FrrConfig::new(*range)
            })),
            HostFactory::Mock(mock) => Box::new(mock.clone()),
        }
    }

    /// The signs that this host can forward. Those of a mock are in a file of the mirror, if there is one.
    pub fn signs(&self, tracked: Tracked) -> Option<Source> {
        match self {
            HostFactory::Real { range, .. } => {
                let run_dirs = FrrConfig::new(*range).run_dirs;
                let reader = SignReader::new(&run_dirs, *range, tracked);
                Some(Source::Host(Box::new(reader)))
            }
            HostFactory::Mock(_) => std::env::var_os(MIRROR_VARIABLE)
                .map(|dir| Source::File(Path::new(&dir).join("signs"))),
        }
    }

    /// The VNIs that may answer ARP: a range of millions is looked through by what exists.
    ///
    /// # Errors
    /// The kernel did not tell.
    pub fn vnis(&self) -> Result<Vec<Vni>, Error> {
        let unknown = |source| Error::Links { source };
        Ok(match self {
            HostFactory::Real { range, bridges, .. } => {
                bridges.vnis(*range).map_err(unknown)?.into_iter().collect()
            }
            HostFactory::Mock(mock) => mock.range().iter().collect(),
        })
    }

    /// The bridges of this machine; `None` for its mock, which has none.
    pub fn bridges(&self) -> Option<Bridges> {
        match self {
            HostFactory::Real { bridges, .. } => Some(bridges.clone()),
            HostFactory::Mock(_) => None,
        }
    }

    /// The kernel routes that announce VNIs, if that is how they are announced.
    pub fn book(&self) -> Option<RouteBook> {
        match self {
            HostFactory::Real {
                announce: Announce::Routes,
                book,
                ..
            } => Some(book.clone()),
            HostFactory::Real { .. } | HostFactory::Mock(_) => None,
        }
    }

    /// Whether nothing of this machine is touched.
    pub fn is_mock(&self) -> bool {
        matches!(self, HostFactory::Mock(_))
    }
}
