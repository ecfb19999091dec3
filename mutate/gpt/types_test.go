package gpt_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// TestTypes asks sfdisk for the names of the types.
func TestTypes(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	out, err := exec.Command("sfdisk", "--label", "gpt", "--list-types").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		names[strings.ToLower(id)] = strings.TrimSpace(name)
	}
	for want, id := range map[string]uuid.UUID{
		"EFI System":                       gpt.TypeESP,
		"Linux extended boot":              gpt.TypeXBOOTLDR,
		"Linux home":                       gpt.TypeHome,
		"Linux server data":                gpt.TypeSrv,
		"Linux variable data":              gpt.TypeVar,
		"Linux filesystem":                 gpt.TypeLinuxGeneric,
		"Linux root (x86-64)":              gpt.TypeRootX86_64,
		"Linux root (ARM-64)":              gpt.TypeRootARM64,
		"Linux /usr (x86-64)":              gpt.TypeUsrX86_64,
		"Linux /usr (ARM-64)":              gpt.TypeUsrARM64,
		"Linux root verity (x86-64)":       gpt.TypeRootVerityX86_64,
		"Linux root verity (ARM-64)":       gpt.TypeRootVerityARM64,
		"Linux /usr verity (x86-64)":       gpt.TypeUsrVerityX86_64,
		"Linux /usr verity (ARM-64)":       gpt.TypeUsrVerityARM64,
		"Linux root verity sign. (x86-64)": gpt.TypeRootVeritySigX86_64,
		"Linux root verity sign. (ARM-64)": gpt.TypeRootVeritySigARM64,
		"Linux /usr verity sign. (x86-64)": gpt.TypeUsrVeritySigX86_64,
		"Linux /usr verity sign. (ARM-64)": gpt.TypeUsrVeritySigARM64,
	} {
		if got := names[id.String()]; got != want {
			t.Errorf("%s is %q to sfdisk, want %q", id, got, want)
		}
	}
}

func TestTypeByArch(t *testing.T) {
	for _, tc := range []struct {
		of   func(string) (uuid.UUID, error)
		arch string
		want uuid.UUID
	}{
		{gpt.RootType, "x86-64", gpt.TypeRootX86_64}, {gpt.RootType, "arm64", gpt.TypeRootARM64},
		{gpt.UsrType, "x86-64", gpt.TypeUsrX86_64}, {gpt.UsrType, "arm64", gpt.TypeUsrARM64},
	} {
		if got, err := tc.of(tc.arch); got != tc.want || err != nil {
			t.Errorf("type for %s = %s, %v, want %s", tc.arch, got, err, tc.want)
		}
	}
	for _, arch := range []string{"", "amd64", "riscv64"} {
		if _, err := gpt.RootType(arch); err == nil || !strings.Contains(err.Error(), "architecture") {
			t.Errorf("RootType(%q) = %v", arch, err)
		}
	}
}
