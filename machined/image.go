package machined

import (
	"context"
)

// PoolPath returns the directory where machined keeps images, which is
// /var/lib/machines. A file NAME.raw renamed into it is registered as NAME by
// that alone; see [Host.ImageOSRelease] for the proof.
func (h *Host) PoolPath(ctx context.Context) (string, error) {
	var path string
	manager := h.conns.bus.Object(machinedName, machinedPath)
	err := property(ctx, manager, machinedName+".Manager", "PoolPath", &path)
	return path, callError(err, "ask machined for its pool")
}

// ImageOSRelease returns the os-release fields of a registered image. machined
// mounts the image to read them, so the answer proves that it is registered
// and that systemd finds its partitions. It is [ErrNoImage] if no image is
// called name. What was asked for a moment ago machined 257 may still know
// after it has been removed.
func (h *Host) ImageOSRelease(ctx context.Context, name string) (map[string]string, error) {
	var fields map[string]string
	err := h.conns.callMachined(ctx, "GetImageOSRelease", []any{name}, &fields)
	return fields, callError(err, "read os-release of image %s", name)
}
