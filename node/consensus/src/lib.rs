//! The Malachite adapter: context, codecs, the app loop
