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

# what needs no privilege: format, vet, staticcheck
check:
    test -z "$(gofmt -l .)"
    go vet ./...
    go tool staticcheck ./...

# rewrite what --json prints, in cmd/imgmut/testdata/golden
golden:
    CGO_ENABLED=0 go test -count=1 -run '^TestGoldenJSON$' ./cmd/imgmut -update

# measure against hand-written scripts, side by side in one run: just bench changed files
bench *rows:
    sh fixtures/bench.sh {{rows}}

# fuzz a parser of foreign bytes: just fuzz ./mutate/gpt FuzzRead 60s
fuzz package='./mutate/gpt' target='FuzzRead' time='60s':
    go test -run '^$' -fuzz '^{{target}}$' -fuzztime {{time}} -fuzzminimizetime 10x {{package}}

# change the code in one place at a time and see which changes no test notices: just mutate ./mutate/gpt
mutate *packages:
    sh fixtures/mutate.sh {{packages}}

# install imgmut for everybody, with its manual page and completion in bash
install:
    CGO_ENABLED=0 go build -trimpath -o /usr/local/bin/imgmut ./cmd/imgmut
    mkdir -p /usr/local/share/man/man8 /usr/local/share/bash-completion/completions
    imgmut man > /usr/local/share/man/man8/imgmut.8
    imgmut completion bash > /usr/local/share/bash-completion/completions/imgmut
