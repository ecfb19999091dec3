package agent

// Unpack is unpack, for tests of another package.
var Unpack = unpack
