use smallvec::SmallVec;

use super::EntryOptions;
use super::entry::Choice;
use crate::node::Node;

/// The options that one call chooses, in order. They are applied to the key's options only when L1
/// cannot answer alone, so that a hit neither copies nor allocates options.
#[derive(Debug, Default)]
pub(crate) struct Choices(SmallVec<[Choice; 2]>);

impl Choices {
    pub(crate) fn add(&mut self, choice: Choice) {
        self.0.push(choice);
    }

    /// Applies these choices to the options of a key.
    pub(crate) fn over(&self, mut options: EntryOptions) -> EntryOptions {
        self.0.iter().for_each(|choice| choice.apply(&mut options));
        options
    }

    /// Whether a fresh value of L1 does not suffice as an answer.
    pub(crate) fn pass_l1(&self, node: &Node, key: &str) -> bool {
        let may_pass_l1 = |choice: &Choice| {
            matches!(choice, Choice::all(_) | Choice::skip_l1_read(_) | Choice::strict(_))
        };
        match self.0.iter().any(may_pass_l1) {
            false => node.skips_l1(key),
            true => self.over(node.options_for(key)).passes_l1(),
        }
    }
}
