//! The table behind every "why these bytes were refused": a closed enum, a stable code and a sentence per row.

/// Expands to the enum, its `ALL`, `code()`, `Display` and `Error`. The codes label counters, the texts go to
/// logs; neither holds anything of the bytes that were refused.
#[doc(hidden)]
#[macro_export]
macro_rules! reasons {
    ($(#[$doc:meta])* pub enum $of:ident { $($name:ident $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the text of each row says it")]
        pub enum $of { $($name,)* }

        impl $of {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$of] = &[$($of::$name,)*];

            /// The kebab-case code that counts it.
            pub const fn code(self) -> &'static str {
                match self { $($of::$name => $code,)* }
            }
        }

        impl std::fmt::Display for $of {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($of::$name => $text,)* })
            }
        }

        impl std::error::Error for $of {}
    };
}

pub use reasons;
