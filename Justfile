# Wraps the commands of README.md; none of them needs just.

# list the recipes
_default:
    @just --list --unsorted

# build imgmut and an image with it, from nothing
demo:
    sh fixtures/demo.sh

# install what the tests need and run all of them
test *packages:
    sh fixtures/test.sh {{packages}}

# what runs no test and needs no privilege: format, vet, staticcheck, line length, spelling, shellcheck
check:
    sh fixtures/check.sh

# how much of each package the tests reach, all of them as root; go tool cover -html=cover.out shows the lines
cover *packages='./...':
    CGO_ENABLED=0 go test -count=1 -p=1 -timeout=60m -coverprofile=cover.out {{packages}}

# rewrite what --json prints, in cmd/imgmut/testdata/golden
golden:
    CGO_ENABLED=0 go test -count=1 -run '^TestGoldenJSON$' ./cmd/imgmut -update

# measure against hand-written scripts, side by side in one run: just bench changed files
bench *rows:
    sh fixtures/bench.sh {{rows}}

# start an image in an emulated machine and wait for its login, which takes minutes: just boot disk.raw
boot image *text:
    sh fixtures/boot.sh {{image}} {{text}}

# start one image of each kind in emulated machines and ask the systems whether they are what was asked for: half an hour
boot-test *cases='.':
    CGO_ENABLED=0 IMGMUT_BOOT=all IMGMUT_TEST_REQUIRE=all go test -count=1 -v -timeout 3h -run 'TestBoot/{{cases}}' ./cmd/imgmut

# run the demo on machines that have really booted, each emulated: half an hour
host-test *hosts='.':
    CGO_ENABLED=0 IMGMUT_BOOT=host IMGMUT_TEST_REQUIRE=all go test -count=1 -v -timeout 3h -run 'TestBootedHost/{{hosts}}' ./cmd/imgmut

# fuzz a parser of foreign bytes: just fuzz ./mutate/gpt FuzzRead 60s
fuzz package='./mutate/gpt' target='FuzzRead' time='60s':
    go test -run '^$' -fuzz '^{{target}}$' -fuzztime {{time}} -fuzzminimizetime 10x {{package}}

# change the code in one place at a time and see which changes no test notices: just mutate ./mutate/gpt
mutate *packages:
    sh fixtures/mutate.sh {{packages}}

# build what a release has, in bin: just release v1.2.3
release version:
    for arch in amd64 arm64; do \
        CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -ldflags '-s -w -X main.tag={{version}}' \
            -o bin/imgmut-linux-$arch ./cmd/imgmut || exit 1; \
    done
    cd bin && sha256sum imgmut-linux-* > SHA256SUMS

# install imgmut for everybody, with its manual page and completion in bash
install:
    CGO_ENABLED=0 go build -trimpath -o /usr/local/bin/imgmut ./cmd/imgmut
    mkdir -p /usr/local/share/man/man8 /usr/local/share/bash-completion/completions
    imgmut man > /usr/local/share/man/man8/imgmut.8
    imgmut completion bash > /usr/local/share/bash-completion/completions/imgmut
