// Package machined runs containers over trees of files with systemd-nspawn, as
// units of a systemd that registers them with systemd-machined. It is the only
// package that speaks D-Bus.
//
// # Words
//
// A host is a running systemd with a system bus and machined. It is the
// machine's own, or a private one that this package starts. A container is what
// to run; a machine is one that runs, as machined calls it. A unit is PID 1's
// side of a machine: the transient service NAME.service for the machine NAME. A
// launcher is a program that makes a container's tree and becomes systemd-nspawn.
//
// # Lifecycle
//
//	h, err := machined.Open(ctx, machined.Options{
//		Init: []string{"/proc/self/exe", "private-host"}, Paths: []string{"/usr/bin/imgmut"},
//	})
//	defer h.Close()
//	m, err := h.Start(ctx, machined.Container{
//		Name: "fork-3f2a", RuntimeDirectory: "fork-3f2a", Directory: "/run/fork-3f2a/tree",
//		Launcher: []string{"/usr/bin/imgmut", "tree", "/run/fork-3f2a/tree"}, Command: …,
//	})
//	defer m.Terminate(ctx) // does nothing after Wait
//	…
//	err = m.Wait(ctx) // the machine and its unit are gone
//
// Every call takes a context and ends with it, except Terminate, which must
// work after an interrupt. No single D-Bus call takes longer than 25 s. Waiting
// is for signals; the host is asked once where a signal is overdue.
//
// # The tree
//
// systemd-nspawn could take a disk image apart itself (--image=), but it goes by
// partition types, where an image goes by its own fstab. So the caller mounts, in a
// launcher, where the mounts are the container's alone: no name on the machine leads
// to them, and however the container ends they end with it. Nor has the unit any use
// for the machine's disks then, and PID 1 lets it open none.
//
// Owners are as the caller mounts them. systemd-nspawn is told which ids of the
// machine the container's users have, and changes none in the tree.
//
// # The private host
//
// Containers, CI runners and small virtual machines have no systemd running.
// There Open starts one: the program's own binary again, in new mount, PID,
// IPC, UTS and cgroup namespaces, which makes itself a root filesystem and
// becomes systemd (see InitPrivateHost). The network is shared, for containers that
// may use it.
//
// The root filesystem is a tmpfs. Of the machine it has the programs and their
// configuration, read-only, machined's pool, and the paths that the caller
// names. So nothing else that is mounted on the machine is kept busy, and what
// programs leave in /tmp and /run goes with the host.
//
// It is built not to touch the machine. PID 1 sees only the units embedded
// here, runs no generators, cannot write /etc and /proc/sys, and lacks the
// capabilities to set the clock, load modules and reboot. There is no udevd, whose
// rules would be about the machine's own devices: systemd-nspawn needs none for a
// tree, nor does machined for a look into an image. The console is a terminal that
// Open reads; it is the log.
//
// It ends with the caller, also by SIGKILL: the kernel kills PID 1 when the
// thread that started it ends, and with PID 1 goes its namespace, every
// container, every mount. What may stay is an empty cgroup, which the next Open
// removes; a lock on the directory tells it from one in use.
//
// Since /run is another one, what the machine keeps there does not exist for a
// private host, such as a resolver's socket or stub-resolv.conf.
//
// # What it does not do
//
// It mounts nothing of an image and locks nothing. It does not speak to the command
// that runs in a container; the caller does, through the descriptors it passed,
// and success of that command is for the command to report: an exit status of 0
// is also what poweroff gives. It does not wait for the kernel, which may let go of
// what was mounted some time after the unit is gone. It reads no environment
// variables and prints nothing.
package machined
