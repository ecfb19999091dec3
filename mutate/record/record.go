// Package record holds what imgmut writes down for years: bases, layers, images
// and their verdicts, as JSON beside the objects of the store.
//
// Here are types and their JSON and nothing else, so that code that only reads
// a record need not know what made it. A field is added with omitempty and
// never renamed: testdata has a record of every version that was ever written,
// and all of them must still load.
package record
