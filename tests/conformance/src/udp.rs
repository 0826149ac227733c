//! Two tiny programs for pods to speak UDP with, which busybox cannot: one answers whatever comes with a
//! text, the other sends a word and writes what comes back. They are put together here, for x86-64, and
//! reach a pod as text in its command.

use std::net::Ipv4Addr;

use base64::Engine as _;

/// Socket, bind; then again and again: receive, send the text.
#[rustfmt::skip]
const SERVER: &[u8] = &[
    0x48, 0x81, 0xec, 0x00, 0x04, 0x00, 0x00, // sub rsp,0x400
    0xbf, 0x02, 0x00, 0x00, 0x00, // mov edi,0x2
    0xbe, 0x02, 0x00, 0x00, 0x00, // mov esi,0x2
    0x31, 0xd2, // xor edx,edx
    0xb8, 0x29, 0x00, 0x00, 0x00, // mov eax,0x29
    0x0f, 0x05, // syscall
    0x89, 0xc3, // mov ebx,eax
    0x89, 0xc7, // mov edi,eax
    0x48, 0x8d, 0x35, 0x66, 0x00, 0x00, 0x00, // lea rsi,[rip+0x66]
    0xba, 0x10, 0x00, 0x00, 0x00, // mov edx,0x10
    0xb8, 0x31, 0x00, 0x00, 0x00, // mov eax,0x31
    0x0f, 0x05, // syscall
    0xc7, 0x84, 0x24, 0x58, 0x02, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, // mov [rsp+0x258],0x10
    0x89, 0xdf, // mov edi,ebx
    0x48, 0x89, 0xe6, // mov rsi,rsp
    0xba, 0x00, 0x01, 0x00, 0x00, // mov edx,0x100
    0x45, 0x31, 0xd2, // xor r10d,r10d
    0x4c, 0x8d, 0x84, 0x24, 0x00, 0x02, 0x00, 0x00, // lea r8,[rsp+0x200]
    0x4c, 0x8d, 0x8c, 0x24, 0x58, 0x02, 0x00, 0x00, // lea r9,[rsp+0x258]
    0xb8, 0x2d, 0x00, 0x00, 0x00, // mov eax,0x2d
    0x0f, 0x05, // syscall
    0x89, 0xdf, // mov edi,ebx
    0x48, 0x8d, 0x35, 0x36, 0x00, 0x00, 0x00, // lea rsi,[rip+0x36]
    0x8b, 0x15, 0x2c, 0x00, 0x00, 0x00, // mov edx,[rip+0x2c]
    0x45, 0x31, 0xd2, // xor r10d,r10d
    0x4c, 0x8d, 0x84, 0x24, 0x00, 0x02, 0x00, 0x00, // lea r8,[rsp+0x200]
    0x44, 0x8b, 0x8c, 0x24, 0x58, 0x02, 0x00, 0x00, // mov r9d,[rsp+0x258]
    0xb8, 0x2c, 0x00, 0x00, 0x00, // mov eax,0x2c
    0x0f, 0x05, // syscall
    0xeb, 0xa6, // jmp 31
];

/// Socket, send, receive, write, exit.
#[rustfmt::skip]
const CLIENT: &[u8] = &[
    0x48, 0x81, 0xec, 0x00, 0x04, 0x00, 0x00, // sub rsp,0x400
    0xbf, 0x02, 0x00, 0x00, 0x00, // mov edi,0x2
    0xbe, 0x02, 0x00, 0x00, 0x00, // mov esi,0x2
    0x31, 0xd2, // xor edx,edx
    0xb8, 0x29, 0x00, 0x00, 0x00, // mov eax,0x29
    0x0f, 0x05, // syscall
    0x89, 0xc3, // mov ebx,eax
    0x89, 0xc7, // mov edi,eax
    0x48, 0x8d, 0x35, 0x50, 0x00, 0x00, 0x00, // lea rsi,[rip+0x50]
    0xba, 0x05, 0x00, 0x00, 0x00, // mov edx,0x5
    0x45, 0x31, 0xd2, // xor r10d,r10d
    0x4c, 0x8d, 0x05, 0x41, 0x00, 0x00, 0x00, // lea r8,[rip+0x41]
    0x41, 0xb9, 0x10, 0x00, 0x00, 0x00, // mov r9d,0x10
    0xb8, 0x2c, 0x00, 0x00, 0x00, // mov eax,0x2c
    0x0f, 0x05, // syscall
    0x89, 0xdf, // mov edi,ebx
    0x48, 0x89, 0xe6, // mov rsi,rsp
    0xba, 0x00, 0x04, 0x00, 0x00, // mov edx,0x400
    0x45, 0x31, 0xd2, // xor r10d,r10d
    0x45, 0x31, 0xc0, // xor r8d,r8d
    0x45, 0x31, 0xc9, // xor r9d,r9d
    0xb8, 0x2d, 0x00, 0x00, 0x00, // mov eax,0x2d
    0x0f, 0x05, // syscall
    0x89, 0xc2, // mov edx,eax
    0x48, 0x89, 0xe6, // mov rsi,rsp
    0xbf, 0x01, 0x00, 0x00, 0x00, // mov edi,0x1
    0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax,0x1
    0x0f, 0x05, // syscall
    0x31, 0xff, // xor edi,edi
    0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax,0x3c
    0x0f, 0x05, // syscall
];

/// Where a program lies in memory.
const BASE: u64 = 0x40_0000;
/// How long the headers before the code are.
const HEADERS: u64 = 64 + 56;

/// What the code finds behind itself first: a `sockaddr_in`.
fn address(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0];
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&ip.octets());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// An ELF file with one segment, which is itself.
fn program(code: &[u8], data: &[u8]) -> Vec<u8> {
    let length = HEADERS + (code.len() + data.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // Executable, for x86-64, version 1.
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    // The entry, the program headers, no section headers.
    for word in [BASE + HEADERS, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    // No flags; sizes and numbers of headers.
    file.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // Loaded, to be read and run.
    file.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, length, length, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file.extend_from_slice(data);
    file
}

/// A script that writes the program, and goes on as `run` says with its path for `{}`.
fn script(program: &[u8], run: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(program);
    let path = "/tmp/udp-$$";
    format!(
        "echo {text} | /bin/busybox base64 -d > {path} && /bin/busybox chmod +x {path} && {}",
        run.replace("{}", path)
    )
}

/// A shell's script that answers at `port` with `text` for ever.
pub fn server(port: u16, text: &str) -> String {
    let mut data = address(Ipv4Addr::UNSPECIFIED, port);
    data.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
    data.extend_from_slice(text.as_bytes());
    script(&program(SERVER, &data), "exec {}")
}

/// A shell's script that writes what is answered there, or fails after five seconds.
pub fn client(ip: Ipv4Addr, port: u16) -> String {
    script(&program(CLIENT, &address(ip, port)), "/bin/busybox timeout 5 {}")
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_programs_hear_each_other() {
        let port = 24_853;
        let mut server = std::process::Command::new("/bin/busybox")
            .args(["sh", "-c", &super::server(port, "heard")])
            .spawn()
            .unwrap();
        let client = client(Ipv4Addr::LOCALHOST, port);
        let mut said = String::new();
        for _ in 0..10 {
            let output = std::process::Command::new("/bin/busybox")
                .args(["sh", "-c", &client])
                .output()
                .unwrap();
            said = String::from_utf8(output.stdout).unwrap();
            if said == "heard" {
                break;
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(said, "heard");
    }
}
