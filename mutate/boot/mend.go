package boot

import "fmt"

// mend says how the loader of an entry is made to hear of kernels, by the
// programs that the image has.
func (j *judge) mend(e Entry) string {
	switch e.Loader {
	case "grub":
		if program := j.program("update-grub"); program != "" {
			return inStep("update-grub")
		}
		if j.program("grub2-mkconfig") != "" {
			return inStep("grub2-mkconfig -o /boot/grub2/grub.cfg")
		}
		return inStep("grub-mkconfig -o /boot/grub/grub.cfg")
	case "bls":
		return inStep("kernel-install add VERSION KERNEL") + ", and kernel-install remove VERSION for one that is gone"
	case "uki":
		return fmt.Sprintf("make %s anew in a step behind the one that changes kernels (kernel-install, ukify, dracut --uefi)", e.File)
	case "extlinux", "syslinux":
		for _, program := range []string{"update-extlinux", "u-boot-update"} {
			if j.program(program) != "" {
				return inStep(program)
			}
		}
	}
	return fmt.Sprintf("write into %s which kernel it starts", e.File)
}

func inStep(command string) string {
	return fmt.Sprintf("run %s in a step behind the one that changes kernels", command)
}

// program finds a program of the image.
func (j *judge) program(name string) string {
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"} {
		if j.isFile(dir + name) {
			return dir + name
		}
	}
	return ""
}
