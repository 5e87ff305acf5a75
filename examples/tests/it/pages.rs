//! Each page is a program that checks itself: it must end well.

use crate::program::{printed, run};

macro_rules! pages {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let output = run(stringify!($name), [""; 0]);
                assert!(output.status.success(), "{}", printed(&output));
            }
        )*
    };
}

pages!(batch cache database growing health pool queue scaling sharding);
