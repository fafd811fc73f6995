derivation {
  name = "hello";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "/usr/bin/mkdir -p $out/bin; echo '#!/bin/sh' > $out/bin/hello; echo 'echo hello' >> $out/bin/hello; /usr/bin/chmod 755 $out/bin/hello" ];
  PATH = "/usr/bin:/bin";
}
