//! SIGTERM, SIGINT and SIGHUP as bytes in a pipe.

use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where the handler writes; the other end stays open as long as the process lives.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn told(_: libc::c_int) {
    let byte = 0u8;
    // SAFETY: write is async-signal-safe, the descriptor was leaked on purpose and stays open. A full pipe is fine: it
    // has been told already, and the socket does not block.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// From now on SIGTERM, SIGINT and SIGHUP don't end the process; `each` is called on a thread of its own instead.
pub fn on_stop(each: impl Fn() + Send + 'static) -> io::Result<()> {
    let (mut reader, writer) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    let action = SigAction::new(
        SigHandler::Handler(told),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the handler only does what a handler may do.
        unsafe { sigaction(signal, &action)? };
    }
    // A limit on file sizes is an error like a full disk, and no reason to die.
    // SAFETY: ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn)? };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() {
                each();
            }
        })?;
    Ok(())
}
