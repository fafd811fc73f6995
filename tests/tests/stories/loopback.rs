//! Taking the loopback interface of this network namespace up and down.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Raises or lowers `lo`.
pub fn set(up: bool) -> io::Result<()> {
    // SAFETY: plain socket call; the descriptor is owned from here on.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor, nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a request of zeroes is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    control(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    let flag = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCGIFFLAGS has just filled in this member of the union.
    let flags = unsafe { &mut request.ifr_ifru.ifru_flags };
    *flags = if up { *flags | flag } else { *flags & !flag };
    control(&socket, libc::SIOCSIFFLAGS, &mut request)
}

fn control(socket: &OwnedFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: both requests take a pointer to an `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut *request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
