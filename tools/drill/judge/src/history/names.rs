//! Names as numbers: a room, user, key or epoch is a `u32` while it is judged. Numbers are given in order of first sight.

use std::collections::HashMap;
use std::sync::Arc;

/// No name: a message without key, an epoch not given.
pub const NONE: u32 = u32::MAX;

/// Names and their numbers.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    /// The number of a name, new if it was never seen.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(NONE);
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    /// [`Names::number`], or [`NONE`].
    pub fn number_of(&mut self, name: Option<&str>) -> u32 {
        name.map_or(NONE, |name| self.number(name))
    }

    /// The name of a number; empty for [`NONE`].
    #[must_use]
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |name| name)
    }

    /// The name, owned; `None` for [`NONE`].
    #[must_use]
    pub fn owned(&self, number: u32) -> Option<String> {
        self.names.get(number as usize).map(|name| String::from(&**name))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Forgets how to find numbers: nothing new is to be named.
    pub(super) fn seal(&mut self) {
        self.numbers = HashMap::new();
    }
}
