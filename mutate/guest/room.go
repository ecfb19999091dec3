package guest

import "golang.org/x/sys/unix"

// Room is how full a filesystem of the guest's image is.
type Room struct {
	At           string // where it is mounted
	Size, Free   int64  // bytes; free is what a step may still take
	Files, Spare uint64 // inodes of all, and those left; both 0 where there is no limit
}

// Rooms tells of each filesystem that can be written to. Of a guest that has ended it
// is empty.
func (g *Guest) Rooms() []Room {
	var all []Room
	for _, m := range g.mounts {
		var st unix.Statfs_t
		if unix.Fstatfs(int(m.Fd()), &st) == nil { // or there is nothing to tell of it
			all = append(all, Room{At: m.Name(), Size: int64(st.Blocks) * st.Frsize, Free: int64(st.Bavail) * st.Frsize,
				Files: st.Files, Spare: st.Ffree})
		}
	}
	return all
}
