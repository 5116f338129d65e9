#!/bin/bash
# guest-run.sh - run one command in a throw-away QEMU guest that has a TPM 2.0 and /dev/uhid.
#
#   guest-run.sh [options] [--] COMMAND [ARG...]
#
# The guest boots Debian's stock kernel (linux-image-*-amd64) in about 4 s under TCG:
#   * swtpm (fresh, or kept in --tpm-state DIR) is the guest's TPM: /dev/tpm0 and /dev/tpmrm0
#   * hid, hid-generic and uhid are loaded: /dev/uhid works, /dev/hidrawN appears
#   * / is this host's own / over 9p, read-only, under a tmpfs overlay: every program and
#     library of the host runs in the guest, and whatever the guest writes is thrown away
#   * the shared folder (-s, default: the current folder) is mounted read-write at the same
#     path: what the guest writes there is on the host at once.  Change files during a run
#     only there: the guest may keep seeing the old contents of anything else
# The command runs as root, in the same working folder and with the caller's environment,
# with stdin from /dev/null.  Its stdout and stderr come out of this script's stdout and
# stderr, and this script exits with the command's exit status.
#
# options
#   -s, --share DIR      host folder to share read-write (default: $PWD)
#   -t, --timeout SECS   stop the guest after this long, exit 124 (default 600)
#   -m, --mem MIB        guest memory (default 2048; overlay writes live in it)
#   -c, --cpus N         guest CPUs (default 2)
#   -a, --accel tcg|kvm  default tcg.  kvm is for hosts with VMX/SVM only: a PVM-based /dev/kvm
#                        cannot run this kernel (no emulation of cmpxchg16b, xrstor, int3)
#   --cpu MODEL          QEMU CPU model (default: max with TCG, host with KVM)
#   --tpm tis|crb|none   TPM interface (default crb)
#   --tpm-state DIR      keep the TPM's state here, across runs (default: fresh each time)
#   --root IMAGE         boot the Debian on this ext4 image instead, by its own systemd; what it
#                        writes stays there.  The command runs as a service once all others are
#                        up, and nothing of the host is there but the share and the kernel's
#                        modules, which are not loaded.  It must leave no process behind
#   --udev               also run systemd-udevd: rules, /dev/hidraw permissions, hotplug events
#   --net                user-mode network, eth0 at 10.0.2.15 (loopback is always up)
#   -v, --verbose        kernel console and timings on stderr
#   --setup              only fetch the kernel and build the initramfs, then exit
# exit status: the command's; 124 time-out; 125 the guest did not run it; 126 bad set-up
#
# environment: GUEST_LAB  where the kernel and initramfs are kept (default: target/guest)
#              QEMU       the QEMU to run (default qemu-system-x86_64)
#
# Debian packages: qemu-system-x86 swtpm busybox-static kmod python3 (what the command itself
# needs, such as tpm2-tools or fido2-tools, is used from the host's own /).  The kernel's
# package is only downloaded and unpacked under GUEST_LAB/kernel, never installed.  Needs root.

set -euo pipefail
LAB=${GUEST_LAB:-$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)/target/guest}
share=$PWD timeout=600 mem=2048 cpus=2 accel=tcg cpu= tpm=crb tpmstate= root= udev=0 net=0 verbose=0 setup=0

die() { echo "guest-run: $*" >&2; exit 126; }

while [ $# -gt 0 ]; do
  case $1 in
    -s|--share)   share=$2; shift 2;;
    -t|--timeout) timeout=$2; shift 2;;
    -m|--mem)     mem=$2; shift 2;;
    -c|--cpus)    cpus=$2; shift 2;;
    -a|--accel)   accel=$2; shift 2;;
    --cpu)        cpu=$2; shift 2;;
    --tpm)        tpm=$2; shift 2;;
    --tpm-state)  tpmstate=$2; shift 2;;
    --root)       root=$2; shift 2;;
    --udev)       udev=1; shift;;
    --net)        net=1; shift;;
    -v|--verbose) verbose=1; shift;;
    --setup)      setup=1; shift;;
    -h|--help)    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0;;
    --)           shift; break;;
    -*)           die "unknown option $1 (try --help)";;
    *)            break;;
  esac
done
[ $setup = 1 ] || [ $# -gt 0 ] || die "no command given (try --help)"

QEMU=${QEMU:-qemu-system-x86_64}     # may hold options too (split at blanks), such as -L DIR
for t in ${QEMU%% *} python3 depmod; do
  command -v "$t" >/dev/null || [ -x "/sbin/$t" ] || die "$t is missing"
done
[ -x /bin/busybox ] || die "/bin/busybox is missing (apt-get install busybox-static)"
[ "$tpm" = none ] || command -v swtpm >/dev/null || die "swtpm is missing"

[ "$(id -u)" = 0 ] || die "needs root (9p passthrough)"

# Set-up below happens once; the lock lets runs start side by side.
mkdir -p "$LAB/kernel"; exec 9> "$LAB/kernel/lock"; flock 9

# ---------------------------------------------------------------- kernel (once, ~5 s)
# The package is unpacked, not installed: no initramfs hooks or boot loader on the host.
if [ ! -e "$LAB/kernel/release" ]; then
  mkdir -p "$LAB/debs"
  pkg=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  [ -n "$pkg" ] || die "apt knows no linux-image-amd64 (apt-get update?)"
  ls "$LAB"/debs/"${pkg}"_*.deb >/dev/null 2>&1 ||
    (cd "$LAB/debs" && apt-get -qq -o APT::Sandbox::User=root download "$pkg") || die "cannot download $pkg"
  for deb in "$LAB"/debs/"${pkg}"_*.deb; do dpkg-deb -x "$deb" "$LAB/kernel"; done
  rel=${pkg#linux-image-}
  /sbin/depmod -b "$LAB/kernel" "$rel"             # so that modprobe works in the guest
  echo "$rel" > "$LAB/kernel/release"
fi
rel=$(cat "$LAB/kernel/release")

# The bzImage is xz inside: under TCG its unpacking alone costs 3-4 s per boot.  Unpack it
# once here and boot the ELF by its PVH note (CONFIG_PVH=y) instead.
if [ ! -e "$LAB/kernel/vmlinux" ]; then
  python3 - "$LAB/kernel/boot/vmlinuz-$rel" "$LAB/kernel/vmlinux.tmp" <<'E'
import lzma, sys
d = open(sys.argv[1], 'rb').read()
elf = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(d[d.find(b'\xfd7zXZ\0'):])
assert elf[:4] == b'\x7fELF'
open(sys.argv[2], 'wb').write(elf)
E
  mv "$LAB/kernel/vmlinux.tmp" "$LAB/kernel/vmlinux"
fi

# ------------------------------------------------------------- initramfs (once, ~0.3 s)
# Module order matters, as insmod resolves nothing.  tpm, tpm_crb, tpm_tis and hidraw are
# built into Debian's kernel, so they need no module.
mods="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci
      9pnet netfs fscache 9pnet_virtio 9p overlay
      virtio_console virtio-rng failover net_failover virtio_net
      virtio_blk crc32c_generic crc16 mbcache jbd2 ext4
      hid hid-generic uhid"
initrd=$LAB/kernel/initramfs.cpio
if [ ! -e "$initrd" ] || [ "$0" -nt "$initrd" ]; then
  d=$(mktemp -d "$LAB/irfs.XXXXXX")
  mkdir -p "$d"/{bin,dev,proc,sys,ro,rw,new,mods}
  cp /bin/busybox "$d/bin/busybox"
  for m in $mods; do
    f=$(find "$LAB/kernel/lib/modules/$rel/kernel" -name "$m.ko" | head -1)
    [ -n "$f" ] || { rm -rf "$d"; die "module $m is not in $rel"; }
    cp "$f" "$d/mods/"; echo "$m" >> "$d/mods/order"
  done
  cat > "$d/init" <<'INIT'
#!/bin/busybox sh
# Stage 1 (initramfs): load modules, mount the host's / read-only under a tmpfs overlay,
# mount the run folder and the share, then hand over to stage 2 on the new root.
bb=/bin/busybox
fail() { echo "guest-init: $*" > /dev/console; $bb poweroff -f; }
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
for m in $($bb cat /mods/order); do
  case $m in hid*|uhid) [ ! -b /dev/vda ] || continue;; esac
  $bb insmod /mods/$m.ko || echo "insmod $m failed" > /dev/console
done
o=trans=virtio,version=9p2000.L,msize=512000
# cache=loose: the page cache keeps what was read (the host's / is not expected to change
# under a running guest).  cache=mmap on the share: always asks the host, mmap still works.
$bb mount -t 9p -o ro,$o,cache=loose hostroot /ro || fail "no host root over 9p"
if [ -b /dev/vda ]; then
  $bb mount -t ext4 /dev/vda /new || fail "no root on the image"
else
  $bb mount -t tmpfs -o size=75%,mode=755 rw /rw; $bb mkdir -p /rw/up /rw/work
  $bb mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work overlay /new || fail "no overlay"
fi
for d in proc sys dev run; do $bb mkdir -p /new/$d; done
$bb mount -t tmpfs -o mode=755 run /new/run
$bb mkdir -p /new/run/guest
$bb mount -t 9p -o $o,cache=none run /new/run/guest || fail "no run folder"
share=$($bb cat /new/run/guest/share)
$bb mkdir -p "/new$share"
$bb mount -t 9p -o $o,cache=mmap share "/new$share" || fail "no share"
read -r udev net mods < /new/run/guest/flags
$bb mkdir -p /new/lib/modules; $bb mount --bind "/ro$mods" /new/lib/modules   # for modprobe
if [ -b /dev/vda ]; then
  # As an initramfs does: /run stays, with a unit that its systemd finds there.
  $bb mkdir -p /new/run/systemd/system/graphical.target.wants
  $bb cp /new/run/guest/guest.service /new/run/systemd/system
  $bb ln -s ../guest.service /new/run/systemd/system/graphical.target.wants
  for d in proc sys dev; do $bb mount --move /$d /new/$d; done
  exec $bb switch_root /new /lib/systemd/systemd < /dev/console > /dev/console 2>&1
fi
# The rest of a minimal system.  Done here with the static busybox, as each start of a
# dynamic program over 9p costs 30-50 ms under TCG.
for d in proc sys dev; do $bb mount --move /$d /new/$d; done
$bb mkdir -p /new/dev/pts /new/dev/shm /new/run/lock
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
$bb mount -t tmpfs -o mode=1777 shm /new/dev/shm
$bb mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$bb ln -s /proc/self/fd /new/dev/fd; for n in 0:stdin 1:stdout 2:stderr; do
  $bb ln -s /proc/self/fd/${n%:*} /new/dev/${n#*:}; done
$bb hostname guest; $bb ifconfig lo 127.0.0.1 up
if [ "$net" = 1 ]; then
  $bb ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; $bb route add default gw 10.0.2.2
  echo nameserver 10.0.2.3 > /new/etc/resolv.conf
fi
exec $bb switch_root /new /bin/bash /run/guest/stage2 < /dev/console > /dev/console 2>&1
INIT
  chmod +x "$d/init"
  (cd "$d" && find . | /bin/busybox cpio -o -H newc 2>/dev/null) > "$initrd.tmp"
  rm -rf "$d"; mv "$initrd.tmp" "$initrd"
fi
exec 9>&-
[ $setup = 0 ] || { echo "guest-run: $rel is ready in $LAB/kernel"; exit 0; }

# ------------------------------------------------------------------- this run's folder
share=$(readlink -f "$share"); [ -d "$share" ] || die "no such folder: $share"
run=$(mktemp -d /tmp/guest-run.XXXXXX)
qpid= tpid=
cleanup() {
  for p in $qpid $tpid; do kill "$p" 2>/dev/null || true; done     # ours, by pid
  for p in $qpid $tpid; do wait "$p" 2>/dev/null || true; done
  rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$run/x"                       # $run/x is what the guest sees as /run/guest
printf '%s' "$share" > "$run/x/share"
echo "$udev $net $LAB/kernel/lib/modules" > "$run/x/flags"
# The command, its folder and the caller's environment, quoted for bash.
{ export -p; printf 'cd -- %q || exit 126\n' "$PWD"; printf 'exec'; printf ' %q' "$@"; echo; } > "$run/x/cmd"

cat > "$run/x/guest.service" <<'UNIT'
[Unit]
Description=The command of guest-run
After=multi-user.target
[Service]
ExecStart=/bin/bash /run/guest/stage2
StandardInput=null
UNIT
cat > "$run/x/stage2" <<'STAGE2'
# Stage 2 (pid 1 on the overlay root, or a service of systemd): udev if wanted, then the command.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
read -r udev _ < /run/guest/flags
if [ "$udev" = 1 ]; then
  # Only the subsystems that matter here: a full coldplug takes seconds under TCG.
  /lib/systemd/systemd-udevd --daemon
  udevadm trigger -s hidraw -s tpm -s tpmrm -s misc; udevadm settle -t 30
fi
read -r up _ < /proc/uptime; echo "$up" > /run/guest/up-start
# stdout and stderr go through pipes, so that the command may reopen /dev/stdout and is not
# on a terminal; each pipe is copied to its own raw virtio-serial port.
port() { for n in /sys/class/virtio-ports/*/name; do
           read -r v < "$n"; [ "$v" = "$1" ] && { n=${n%/name}; echo "/dev/${n##*/}"; }; done; }
mkfifo /run/out /run/err
cat /run/out > "$(port out)" & c1=$!       # the N of /dev/vportNpM depends on the device order
cat /run/err > "$(port err)" & c2=$!
exec 3> /run/out 4> /run/err
setsid bash /run/guest/cmd < /dev/null >&3 2>&4 3>&- 4>&-
rc=$?
# Processes the command left behind would keep the pipes open: end them all but the copiers.
exec 3>&- 4>&-
[ $$ != 1 ] || for p in /proc/[0-9]*; do
  p=${p#/proc/}
  [ "$p" -gt 2 ] && [ "$p" != $c1 ] && [ "$p" != $c2 ] && kill -9 "$p" 2>/dev/null   # kernel threads ignore it
done
wait $c1 $c2
echo $rc > /run/guest/rc.tmp; mv /run/guest/rc.tmp /run/guest/rc
sync
read -r up _ < /proc/uptime; echo "$up" > /run/guest/up-end
[ $$ != 1 ] || busybox poweroff -f
systemctl --no-block poweroff
STAGE2

# ----------------------------------------------------------------------------- swtpm
# Paths must be absolute: swtpm --daemon changes to /.  QEMU sends CMD_INIT by itself, and
# the kernel sends TPM2_Startup (qboot does not), so no swtpm start-up flags.
tpmargs=()
if [ "$tpm" != none ]; then
  [ -n "$tpmstate" ] || tpmstate=$run/tpm
  mkdir -p "$tpmstate"; tpmstate=$(readlink -f "$tpmstate")
  swtpm socket --tpm2 --tpmstate "dir=$tpmstate" --ctrl "type=unixio,path=$run/tpm.ctl" \
    --terminate > "$run/swtpm.log" 2>&1 & tpid=$!
  for _ in $(seq 100); do [ -S "$run/tpm.ctl" ] && break; sleep 0.02; done
  [ -S "$run/tpm.ctl" ] || { cat "$run/swtpm.log" >&2; die "swtpm did not start"; }
  tpmargs=(-chardev "socket,id=tpmc,path=$run/tpm.ctl" -tpmdev emulator,id=tpm0,chardev=tpmc
           -device "tpm-$tpm,tpmdev=tpm0")
fi

# ------------------------------------------------------------------------------ QEMU
case $accel in
  tcg) acc=tcg,thread=multi,tb-size=1024; cpu=${cpu:-max};;
  kvm) acc=kvm; cpu=${cpu:-host};;
  *)   die "--accel is tcg or kvm";;
esac
netargs=(); [ $net = 0 ] || netargs=(-netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile=)
rootargs=(); [ -z "$root" ] || rootargs=(-drive "file=${root//,/,,},format=raw,if=none,id=root,cache=unsafe"
                                     -device virtio-blk-pci,drive=root)
quiet=quiet; [ $verbose = 0 ] || quiet=loglevel=6
t0=${EPOCHREALTIME/./}
# fd 11 and 12 are this script's stdout and stderr; QEMU appends the guest's streams there.
timeout -k 5 "$timeout" $QEMU -M q35 -accel "$acc" -cpu "$cpu" -smp "$cpus" -m "$mem" \
  -nodefaults -no-user-config -display none -no-reboot -bios qboot.rom \
  -kernel "$LAB/kernel/vmlinux" -initrd "$initrd" \
  -append "console=ttyS0 $quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on" \
  -serial "file:$run/console" \
  -fsdev "local,id=fs0,path=/,security_model=passthrough,readonly=on,multidevs=remap" \
  -device virtio-9p-pci,fsdev=fs0,mount_tag=hostroot \
  -fsdev "local,id=fs1,path=$run/x,security_model=passthrough,multidevs=remap" \
  -device virtio-9p-pci,fsdev=fs1,mount_tag=run \
  -fsdev "local,id=fs2,path=${share//,/,,},security_model=passthrough,multidevs=remap" \
  -device virtio-9p-pci,fsdev=fs2,mount_tag=share \
  -device virtio-rng-pci \
  -add-fd fd=11,set=1 -add-fd fd=12,set=2 \
  -chardev file,id=out,path=/dev/fdset/1,append=on \
  -chardev file,id=err,path=/dev/fdset/2,append=on \
  -device virtio-serial-pci \
  -device virtserialport,nr=1,chardev=out,name=out \
  -device virtserialport,nr=2,chardev=err,name=err \
  "${tpmargs[@]}" "${netargs[@]}" "${rootargs[@]}" \
  11>&1 12>&2 > "$run/qemu.log" 2>&1 < /dev/null & qpid=$!

wait "$qpid" && qrc=0 || qrc=$?
qpid=
t1=${EPOCHREALTIME/./}

if [ $verbose = 1 ]; then
  tr -d '\r' < "$run/console" >&2 2>/dev/null || true
  echo "guest-run: total $(( (t1-t0)/1000 )) ms; guest uptime at start of command $(cat "$run/x/up-start" 2>/dev/null) s, at end $(cat "$run/x/up-end" 2>/dev/null) s" >&2
fi
if [ -s "$run/x/rc" ]; then rc=$(cat "$run/x/rc"); exit "$rc"; fi
[ $qrc != 124 ] || { echo "guest-run: timed out after $timeout s" >&2; exit 124; }
echo "guest-run: the guest did not finish (qemu exit $qrc)" >&2
cat "$run/qemu.log" >&2; tail -n 30 "$run/console" 2>/dev/null | tr -d '\r' >&2
exit 125
