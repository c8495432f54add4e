//! A worker that is a bad neighbour: it makes ready, begins when told, and ends with its input. It measures nothing.

use std::time::Duration;

use anyhow::{Context, bail};
use sluice_load::dial;
use sluice_load::driver::Driver;
use sluice_load::habit::{Habit, Target};

use crate::control::{self, Control, INPUT};
use crate::spec::{Command, Place, Ready};
use crate::token;

/// Runs until the input ends.
pub(crate) fn run(mut control: Control, name: &str, place: &Place) -> anyhow::Result<()> {
    dial::raise_file_limit()?;
    let habit = Habit::named(name).with_context(|| format!("there is no habit {name:?}"))?;
    let target = Target {
        to: place.address.into(),
        tag: place.tag.clone(),
        token: Box::new(|user| token::of(&place.secret, user).ok()),
    };
    let running = habit.prepare(&target)?;
    // A driver for the pipe alone: the habit's own must not be woken by it.
    let (mut input, mut events) = (Driver::<()>::new()?, Vec::new());
    control.register(input.registry())?;
    control::say(&Ready { took_s: 0.0, address: None })?;
    input.wait(None, &mut events)?;
    match control.commands()?.as_deref() {
        Some([Command::Go]) => {}
        Some(_) => bail!("a habit can only begin"),
        None => return Ok(()),
    }
    let mut trouble = None;
    let totals = running.run(&target, || {
        trouble = input.wait(Some(Duration::ZERO), &mut events).err();
        trouble.is_some() || events.iter().any(|event| event.key == INPUT)
    })?;
    if let Some(trouble) = trouble {
        return Err(trouble.into());
    }
    Ok(control::say(&totals)?)
}
