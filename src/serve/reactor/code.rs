//! What a quiet process gives back: the pages of its own code.
//!
//! Most of the program runs once, at the start, and the kernel maps sixteen pages for each that is touched: two and a half MiB
//! that nobody needs while clients are silent. What is needed again is mapped again, out of the same memory of the system,
//! in less than a tenth of a millisecond for all of it. Decided here: what can go. Not decided here: when.
//!
//! This is the one place with unsafe code. It would be wrong for a page that differs from the file that it was mapped from:
//! such a page is lost (madvise(2)): what was relocated when the program was loaded, what a debugger has put into the code. So
//! only code is let go, and what stands before it in the file, as neither is relocated; of these only what the kernel says has
//! no such page (proc_pid_smaps(5): `Anonymous`, `Swap`; emulators say that of all); and nothing of a library while there is
//! another thread, which might unload it.

#![allow(unsafe_code, reason = "there is no safe call for it; argued above")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// Gives back what can be given back; nothing where `/proc` does not say what that is, or the system refuses.
pub fn release() {
    if let Err(error) = try_release() {
        log::debug!("the pages of idle code stay mapped: {error}");
    }
}

fn try_release() -> io::Result<()> {
    let is_alone = fs::read_dir("/proc/self/task")?.count() == 1;
    // Small, since it stays with the heap of a process that wants to be small.
    let text = BufReader::with_capacity(1024, File::open("/proc/self/smaps")?);
    let mut mappings = unchanged(text)?;
    if !is_alone {
        let here = (release as fn()) as usize;
        let own = mappings
            .iter()
            .find(|mapping| mapping.place.contains(&here));
        let own = own.map(|mapping| mapping.file.clone());
        mappings.retain(|mapping| own.as_ref() == Some(&mapping.file));
    }
    for Mapping { place, .. } in mappings {
        let start = ptr::without_provenance_mut(place.start);
        // SAFETY: none of these pages can be written to, and each is the file's: whoever reads or runs them next finds the same
        // bytes. They are still what they were a moment ago: this thread has unloaded nothing since, another one is not there to
        // do it, and the program itself is never unloaded.
        unsafe { madvise(start, place.len(), Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// What is mapped of programs and libraries, and is just as it is in the file.
fn unchanged(text: impl BufRead) -> io::Result<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.split(b'\n') {
        // Paths are bytes.
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(mapping) = Mapping::parse(&line) {
            found.push(mapping);
        } else if let Some(mapping) = found.last_mut() {
            let is_none = |name| Some(line.strip_prefix(name)?.trim() == "0 kB");
            if let Some(is_none) = is_none("Anonymous:") {
                mapping.has_own_pages = !is_none;
            } else if let Some(is_none) = is_none("Swap:") {
                mapping.has_swapped_pages = !is_none;
            }
        }
    }
    found.retain(|mapping| {
        let is_as_in_file = !mapping.has_own_pages && !mapping.has_swapped_pages;
        is_as_in_file && mapping.is_fixed && mapping.file != NO_FILE
    });
    Ok(found)
}

/// A mapping, as far as it matters.
struct Mapping {
    place: Range<usize>,
    /// Code, or what stands before the code: neither is written to when a program is loaded.
    is_fixed: bool,
    /// Device and inode.
    file: String,
    /// Pages that differ from the file's: in memory, and swapped out. There may be some until the kernel says that there are none.
    has_own_pages: bool,
    has_swapped_pages: bool,
}

impl Mapping {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`: the first and the third in base 16, without a prefix.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |digits| usize::from_str_radix(digits, 16).ok();
        let place = number(start)?..number(end)?;
        let (permissions, offset) = (words.next()?, words.next()?);
        let is_first = number(offset)? == 0;
        let (device, inode) = (words.next()?, words.next()?);
        Some(Mapping {
            place,
            is_fixed: !permissions.contains('w') && (is_first || permissions.contains('x')),
            file: format!("{device} {inode}"),
            has_own_pages: true,
            has_swapped_pages: true,
        })
    }
}

/// Of memory that has none.
const NO_FILE: &str = "00:00 0";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
5000-6000 r--p 00000000 fe:01 12                         /usr/bin/ic
Size:                  4 kB
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               4 kB
VmFlags: rd mr mw me
6000-9000 r-xp 00001000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
AnonHugePages:         8 kB
Swap:                  0 kB
9000-a000 r-xp 00004000 fe:01 12                         /usr/bin/ic
Anonymous:             4 kB
Swap:                  0 kB
a000-b000 r-xp 00005000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
Swap:                 64 kB
a000-b000 r--p 00005000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 rw-p 00000000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
Swap:                  0 kB
c000-d000 r--p 00000000 00:00 0                          [heap]
Anonymous:             0 kB
Swap:                  0 kB
7f00-7f80 r-xp 00000000 fe:01 13                         /lib/a folder/libc.so.6 (deleted)
Anonymous:             0 kB
Swap:                  0 kB
7f80-7fa0 r-xp 00000000 fe:01 14                         /lib/libm.so.6
Anonymous:             0 kB
ffff8000-ffffa000 r-xp 00000000 00:00 0                  [vdso]
Anonymous:             0 kB
Swap:                  0 kB
";

    #[test]
    fn what_equals_its_file_is_found_and_nothing_else() {
        // Paths are bytes.
        let text = [
            TEXT.as_bytes(),
            b"ffffb000-ffffc000 r-xp 0 fe:01 15 /\xff\nAnonymous: 0 kB\nSwap: 0 kB\n",
        ];
        let found = unchanged(&text.concat()[..]).expect("it can be read");
        let found: Vec<(Range<usize>, &str)> = found
            .iter()
            .map(|mapping| (mapping.place.clone(), mapping.file.as_str()))
            .collect();
        let expected = [
            (0x5000..0x6000, "fe:01 12"),
            (0x6000..0x9000, "fe:01 12"),
            (0x7f00..0x7f80, "fe:01 13"),
            (0xffff_b000..0xffff_c000, "fe:01 15"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_let_go_comes_back_when_it_is_needed() {
        // Other tests run beside it: only the program's own file is let go.
        try_release().expect("the kernel tells what is mapped");
        let found = unchanged(TEXT.as_bytes()).expect("it is text");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_text_that_is_no_list_of_mappings_has_none() {
        for text in [
            "",
            "\n",
            "x",
            "Anonymous: 0 kB\n",
            "1-g r-xp 0 fe:01 12 x\nAnonymous: 0 kB\n",
        ] {
            let found = unchanged(text.as_bytes()).expect("it is text");
            assert!(found.is_empty(), "{text:?}");
        }
    }
}
