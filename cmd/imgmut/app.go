package main

// The groups of commands.
const (
	groupBuild  = "Build"
	groupImages = "Images"
	groupBases  = "Bases"
	groupStore  = "Store"
	groupHelp   = "Help"
)

var groups = []string{groupBuild, groupImages, groupBases, groupStore, groupHelp}

// commands are all there are: a new one is a file and a line here.
var commands = []*spec{
	applyCommand,
	lsCommand, inspectCommand, verifyCommand, rmCommand,
	importCommand,
	gcCommand, doctorCommand,
	helpCommand, manCommand, completionCommand, versionCommand,
}

// globals are the flags of all commands.
var globals = []flag{
	{name: "store", value: "DIR", def: "/var/lib/imgmut", env: "IMGMUT_STORE",
		help: "where bases, layers and images are kept"},
	{name: "host", value: "auto|system|private", def: "auto", env: "IMGMUT_HOST", help: "whose systemd runs the steps"},
	{name: "progress", value: "auto|tty|plain|json|quiet", def: "auto", env: "IMGMUT_PROGRESS",
		help: "how to show what is done"},
	{name: "json", help: "print the result, or the error, as JSON"},
	{name: "log-level", value: "debug|info|warn|error", def: "warn", help: "how much to log"},
}

const (
	tagline     = "build disk images the way containers are built"
	description = `imgmut forks a base raw image by reflink, runs a recipe's steps in it under
systemd-nspawn, keeps the disk after every step as a layer, gives the result
an identity of its own and verifies it. What did not change is not run again.

   img=$(imgmut apply recipe.yaml)

Flags may come before the command, behind it, and among its arguments; what
follows -- is an argument. Standard output has results and nothing else.`
)
