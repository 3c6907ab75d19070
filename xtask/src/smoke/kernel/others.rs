//! x
use super::Checks;
use anyhow::Result;
pub(super) fn run(_: &mut Checks<'_>) -> Result<()> {
    Ok(())
}
