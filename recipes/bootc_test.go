package recipes

import (
	"strings"
	"testing"
)

const imageDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const otherDigest = "sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestBootc(t *testing.T) {
	for in, want := range map[string]Bootc{
		"{image: docker://quay.io/a/b:1}":                    {Image: ContainerImage{"docker", "quay.io/a/b", "1", ""}},
		`{image: "docker://[::1]:5000/a"}`:                   {Image: ContainerImage{"docker", "[::1]:5000/a", "", ""}},
		"{image: docker://localhost/a_b-c.d__e}":             {Image: ContainerImage{"docker", "localhost/a_b-c.d__e", "", ""}},
		"{image: docker://h:1/a@" + imageDigest + "}":        {Image: ContainerImage{"docker", "h:1/a", "", imageDigest}},
		"{image: docker://h:1/a:t@" + imageDigest + "}":      {Image: ContainerImage{"docker", "h:1/a", "t", imageDigest}},
		"{image: oci:dir}":                                   {Image: ContainerImage{"oci", "x/dir", "", ""}},
		"{image: oci:/a/../dir/:tag}":                        {Image: ContainerImage{"oci", "/dir", "tag", ""}},
		"{image: oci-archive:f.tar:tag}":                     {Image: ContainerImage{"oci-archive", "x/f.tar", "tag", ""}},
		"{image: docker-archive:f.tar:a/b:1}":                {Image: ContainerImage{"docker-archive", "x/f.tar", "a/b:1", ""}},
		"{image: containers-storage:localhost/a}":            {Image: ContainerImage{"containers-storage", "localhost/a", "", ""}},
		"{image: containers-storage:a:1, keep: 1}":           {Image: ContainerImage{"containers-storage", "a", "1", ""}, Keep: 1},
		"{image: oci:d, digest: " + `"` + imageDigest + `"}`: {Image: ContainerImage{"oci", "x/d", "", imageDigest}},
		"{image: oci:d, target: quay.io/a/b:1}":              {Image: ContainerImage{"oci", "x/d", "", ""}, Target: "quay.io/a/b:1"},
		"{image: oci:d, target: docker://quay.io/a/b:1}":     {Image: ContainerImage{"oci", "x/d", "", ""}, Target: "quay.io/a/b:1"},
		"{image: docker://h:1/a, max-age: 1h}":               {Image: ContainerImage{"docker", "h:1/a", "", ""}, MaxAge: Duration(3600e9)},
	} {
		r, err := Parse("x/r.yaml", []byte(head+"bootc: "+in+"\n"))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		want.Pos = Pos{Line: 4, Col: 8}
		if r.Bootc != want {
			t.Errorf("%s: %+v, want %+v", in, r.Bootc, want)
		}
	}
}

func TestBootcProblems(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "bootc: want a mapping with image",
		"quay.io/a":                           "bootc: want a mapping with image",
		"{}":                                  "bootc.image: missing",
		"{imgae: x}":                          "bootc.imgae: unknown key",
		"{image: 7}":                          "bootc.image: want text",
		"{image: quay.io/a/b}":                "bootc.image: \"quay.io/a/b\": nothing says where it is",
		"{image: quay.io/a/b:1}":              "bootc.image: \"quay.io/a/b:1\": nothing says where it is",
		"{image: debian}":                     "nothing says where it is",
		"{image: docker://debian}":            "it has no host",
		"{image: docker:quay.io/a}":           "it has no host",
		"{image: docker://h:1/A}":             "it is no name of an image",
		"{image: docker://h:1/../a}":          "it is no name of an image",
		"{image: docker://u:p@h/a}":           "behind its @",
		"{image: docker://h:1/a:-t}":          "behind its : is no tag",
		"{image: docker://h:1/a@sha256:12}":   "behind its @",
		"{image: oci://quay.io/a}":            "it is a path, not a URL",
		"{image: \"oci:\"}":                   "it has no path",
		"{image: oci:~/d}":                    "no shell expands the ~",
		"{image: dir:d}":                      "there are no container images of that kind",
		"{image: containers-storage:-x}":      "it is no name of an image",
		"{image: \"containers-storage:a b\"}": "it is no name of an image",
		"{image: \"oci:a\\nb\"}":              "characters that cannot be seen",
		"{image: oci:d, keep: 0}":             "bootc.keep: want 1 to 16 deployments",
		"{image: oci:d, keep: 17}":            "bootc.keep: want 1 to 16",
		"{image: oci:d, digest: sha256:1}":    "bootc.digest:",
		"{image: docker://h:1/a@" + imageDigest + `, digest: "` + otherDigest + `"}`: "bootc.digest: the image itself says",
		"{image: oci:d, target: b}":                                "bootc.target: \"b\": it has no host",
		"{image: oci:d, target: h:1/a@" + imageDigest + "}":        "bootc.target: ",
		"{image: oci:d, max-age: 1h}":                              "bootc.max-age: it is about what a registry is asked",
		"{image: docker://h:1/a@" + imageDigest + ", max-age: 1h}": "bootc.max-age: an image with that digest",
		"{image: docker://h:1/a, max-age: 0s}":                     "bootc.max-age: want a duration above zero",
	} {
		_, err := Parse("r.yaml", []byte(head+"bootc: "+in+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "r.yaml:4:") || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got  %v\nwant %s", in, err, want)
		}
	}
}

// FuzzContainerImage: whatever a recipe calls an image, it is one of the forms, or a problem.
func FuzzContainerImage(f *testing.F) {
	for _, s := range []string{"docker://h:1/a:t@" + imageDigest, "oci:d:t", "docker-archive:f:a/b:1", "containers-storage:[o@/x]a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, problem, _ := parseImage(s)
		if problem != "" {
			return
		}
		if c.Name == "" || c.Digest != "" && !imageSum().MatchString(c.Digest) || strings.ContainsAny(c.Name, "\n\x00") {
			t.Errorf("%q: %+v", s, c)
		}
	})
}
