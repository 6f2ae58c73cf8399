//! A daemon without a guard: for tests of its other parts.

use wmgwd::guard::{Error, Guard, Guards, Standing};
use wmgwd::model::types::{Lease, Vni};

/// No guard.
pub struct NoGuard;

impl Guard for NoGuard {
    fn lease(&mut self, _: Lease) {}
    fn serves(&mut self, _: &[(Vni, u32)]) {}
    fn released(&mut self, _: &[Vni]) {}
    fn standing(&mut self) -> Standing {
        Standing::Well
    }
    fn dismiss(&mut self) {}
}

impl Guards for NoGuard {
    fn relieve(&mut self) -> Result<Box<dyn Guard>, Error> {
        Ok(Box::new(NoGuard))
    }
    fn dismiss(&mut self) {}
}
