package mount

// Namespace is the descriptor of the tree's mount namespace.
func (t *Tree) Namespace() int { return int(t.namespace.Fd()) }
