//! The program of a sandbox: holds the pod's namespaces open, reaps what its containers leave
//! behind, and ends when asked to. Written out by hand, instruction by instruction, because a
//! fresh machine has no image to take it from and no compiler to make it with.
//!
//! ```text
//! rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8)          children that end leave no zombie
//! rt_sigprocmask(SIG_BLOCK, {SIGTERM, SIGINT}, ...)  a blocked signal reaches even process 1
//! do { signal = rt_sigtimedwait({SIGTERM, SIGINT}, NULL, NULL, 8) } while (signal < 0)
//! exit_group(0)
//! ```

/// Name of the image made of it.
pub const NAME: &str = "kontiki.local/pause:1";

/// Where the file is loaded, with all its headers.
const BASE: u32 = 0x40_0000;
/// Headers of an ELF file with one segment: 64 bytes and 56 bytes.
const HEADERS: u32 = 64 + 56;
/// Bytes of a signal set, which the system calls want to know.
const SET_BYTES: u8 = 8;
const SIGCHLD: u8 = 17;
/// SIGINT (2) and SIGTERM (15): signal n is bit n - 1.
const STOP_SIGNALS: u64 = (1 << 1) | (1 << 14);
/// `SIG_IGN` as a handler.
const IGNORE: u64 = 1;

/// Machine numbers of the ELF header.
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// The program as an ELF file, for architectures that it is written for.
pub fn program(arch: &str) -> Option<Vec<u8>> {
    // The data stands before the code, so that its addresses are known while coding:
    // struct sigaction { handler, flags, restorer, mask } for SIGCHLD, then the signal set.
    let ignore = BASE + HEADERS;
    let set = ignore + 32;
    let entry = set + 8;
    let mut data = Vec::new();
    for word in [IGNORE, 0, 0, 0, STOP_SIGNALS] {
        data.extend_from_slice(&word.to_le_bytes());
    }
    let (machine, code) = match arch {
        "x86_64" => (X86_64, x86_64(ignore, set)),
        "aarch64" => (AARCH64, aarch64(ignore, set)),
        _ => return None,
    };
    data.extend_from_slice(&code);
    Some(elf(machine, entry, &data))
}

fn x86_64(ignore: u32, set: u32) -> Vec<u8> {
    let [i0, i1, i2, i3] = ignore.to_le_bytes();
    let [s0, s1, s2, s3] = set.to_le_bytes();
    let before_loop: [&[u8]; 14] = [
        &[0xbf, SIGCHLD, 0, 0, 0],         // mov edi, SIGCHLD
        &[0xbe, i0, i1, i2, i3],           // mov esi, ignore
        &[0x31, 0xd2],                     // xor edx, edx       (old action: not wanted)
        &[0x41, 0xba, SET_BYTES, 0, 0, 0], // mov r10d, 8
        &[0xb8, 13, 0, 0, 0],              // mov eax, rt_sigaction
        &[0x0f, 0x05],                     // syscall
        &[0x31, 0xff],                     // xor edi, edi       (SIG_BLOCK)
        &[0xbe, s0, s1, s2, s3],           // mov esi, set
        &[0x31, 0xd2],                     // xor edx, edx       (old mask: not wanted)
        &[0x41, 0xba, SET_BYTES, 0, 0, 0], // mov r10d, 8
        &[0xb8, 14, 0, 0, 0],              // mov eax, rt_sigprocmask
        &[0x0f, 0x05],                     // syscall
        &[0x90],                           // nop                (the loop starts after this)
        &[0x90],                           // nop
    ];
    let the_loop: [&[u8]; 7] = [
        &[0xbf, s0, s1, s2, s3],           // mov edi, set
        &[0x31, 0xf6],                     // xor esi, esi       (which one: not wanted)
        &[0x31, 0xd2],                     // xor edx, edx       (no time limit)
        &[0x41, 0xba, SET_BYTES, 0, 0, 0], // mov r10d, 8
        &[0xb8, 128, 0, 0, 0],             // mov eax, rt_sigtimedwait
        &[0x0f, 0x05],                     // syscall
        &[0x85, 0xc0],                     // test eax, eax
    ];
    // Back over the loop and over this jump of two bytes, as a signed byte.
    let back = u8::try_from(256 - (the_loop.concat().len() + 2)).expect("the loop must be short");
    let after_loop: [&[u8]; 4] = [
        &[0x78, back],         // js loop            (interrupted: wait again)
        &[0x31, 0xff],         // xor edi, edi       (exit code 0)
        &[0xb8, 231, 0, 0, 0], // mov eax, exit_group
        &[0x0f, 0x05],         // syscall
    ];
    [before_loop.concat(), the_loop.concat(), after_loop.concat()].concat()
}

fn aarch64(ignore: u32, set: u32) -> Vec<u8> {
    /// mov xREGISTER, #value (below 65536)
    const fn movz(register: u32, value: u32) -> u32 {
        0xd280_0000 | (value << 5) | register
    }
    /// movk xREGISTER, #value, lsl #16
    const fn movk_high(register: u32, value: u32) -> u32 {
        0xf2a0_0000 | (value << 5) | register
    }
    const SVC: u32 = 0xd400_0001; // svc #0

    let before_loop = [
        movz(0, SIGCHLD.into()),  // x0 = SIGCHLD
        movz(1, ignore & 0xffff), // x1 = ignore
        movk_high(1, ignore >> 16),
        movz(2, 0),                // x2 = NULL          (old action: not wanted)
        movz(3, SET_BYTES.into()), // x3 = 8
        movz(8, 134),              // x8 = rt_sigaction
        SVC,
        movz(0, 0),            // x0 = SIG_BLOCK
        movz(1, set & 0xffff), // x1 = set
        movk_high(1, set >> 16),
        movz(2, 0),                // x2 = NULL          (old mask: not wanted)
        movz(3, SET_BYTES.into()), // x3 = 8
        movz(8, 135),              // x8 = rt_sigprocmask
        SVC,
    ];
    let the_loop = [
        movz(0, set & 0xffff), // x0 = set
        movk_high(0, set >> 16),
        movz(1, 0),                // x1 = NULL          (which one: not wanted)
        movz(2, 0),                // x2 = NULL          (no time limit)
        movz(3, SET_BYTES.into()), // x3 = 8
        movz(8, 137),              // x8 = rt_sigtimedwait
        SVC,
    ];
    let words_back = u32::try_from(the_loop.len()).expect("the loop must be short");
    let offset = 0_u32.wrapping_sub(words_back) & 0x3fff;
    let after_loop = [
        0x37f8_0000 | (offset << 5), // tbnz w0, #31, loop  (interrupted: wait again)
        movz(0, 0),                  // x0 = 0              (exit code)
        movz(8, 94),                 // x8 = exit_group
        SVC,
    ];
    let words = before_loop.iter().chain(&the_loop).chain(&after_loop);
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// An ELF file whose one segment is the whole file, readable and executable.
fn elf(machine: u16, entry: u32, content: &[u8]) -> Vec<u8> {
    let size = u64::from(HEADERS) + content.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0]; // 64 bits, little end first, version 1
    file.resize(16, 0);
    let put16 = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let put32 = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    let put64 = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
    put16(&mut file, 2); // executable
    put16(&mut file, machine);
    put32(&mut file, 1); // version
    put64(&mut file, entry.into());
    put64(&mut file, 64); // program headers follow this header
    put64(&mut file, 0); // no section headers
    put32(&mut file, 0); // flags
    for value in [64, 56, 1, 0, 0, 0] {
        put16(&mut file, value); // sizes and counts of headers
    }
    put32(&mut file, 1); // segment to load
    put32(&mut file, 4 | 1); // readable, executable
    put64(&mut file, 0); // from the file's start
    put64(&mut file, BASE.into()); // to this address,
    put64(&mut file, BASE.into()); // physical address: not used
    put64(&mut file, size); // bytes in the file
    put64(&mut file, size); // bytes in memory
    put64(&mut file, 0x1000); // alignment
    assert_eq!(file.len(), HEADERS as usize, "headers must end where the data begins");
    file.extend_from_slice(content);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn every_architecture_gets_a_file_of_its_machine() {
        for (arch, machine) in [("x86_64", 62_u8), ("aarch64", 183)] {
            let file = program(arch).unwrap();
            assert_eq!(&file[..4], b"\x7fELF");
            assert_eq!(file[18], machine);
            let entry = u64::from_le_bytes(file[24..32].try_into().unwrap());
            let offset = usize::try_from(entry - u64::from(BASE)).unwrap();
            assert!(offset < file.len(), "entry lies in the file");
        }
        assert_eq!(program("sparc"), None);
    }

    #[test]
    fn it_waits_until_it_is_asked_to_end_and_then_ends_well() {
        let Some(bytes) = program(std::env::consts::ARCH) else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // Only once it waits in rt_sigtimedwait is the signal sent.
        let call = if cfg!(target_arch = "x86_64") { "128 " } else { "137 " };
        let file = format!("/proc/{}/syscall", child.id());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with(call)) {
            if std::time::Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it never waited for signals");
            }
            std::thread::yield_now();
        }
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = child.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(0), None));
    }
}
