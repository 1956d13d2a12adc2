//! The options that one call sets.

use smallvec::SmallVec;

use super::EntryOptions;
use super::entry::Choice;

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

    /// Whether one of them decides if a fresh value of L1 suffices as an answer.
    #[inline]
    pub(crate) fn decide_about_l1(&self) -> bool {
        let decides = |choice: &Choice| {
            matches!(choice, Choice::all(_) | Choice::skip_l1_read(_) | Choice::strict(_))
        };
        self.0.iter().any(decides)
    }
}
