package machined

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
)

// Image is one image that machined knows.
type Image struct {
	Name     string
	Path     string
	Type     string // "raw", "directory", "subvolume" or "block"
	ReadOnly bool
	Modified time.Time // zero if unknown
	Usage    uint64    // bytes that the file claims, shared ones counted in full
}

// PoolPath returns the directory where machined keeps images, which is
// /var/lib/machines. A file NAME.raw renamed into it is registered as NAME by
// that alone; see [Host.ImageOSRelease] for the proof.
func (h *Host) PoolPath(ctx context.Context) (string, error) {
	var path string
	manager := h.conns.bus.Object(machinedName, machinedPath)
	err := property(ctx, manager, machinedName+".Manager", "PoolPath", &path)
	return path, callError(err, "ask machined for its pool")
}

// Images lists the images that machined knows, its hidden ones too.
func (h *Host) Images(ctx context.Context) ([]Image, error) {
	var rows []struct {
		Name, Type string
		ReadOnly   bool
		Created    uint64
		Modified   uint64 // µs since 1970
		Usage      uint64
		Object     dbus.ObjectPath
	}
	if err := h.conns.callMachined(ctx, "ListImages", nil, &rows); err != nil {
		return nil, callError(err, "list images")
	}
	images := make([]Image, 0, len(rows))
	for _, r := range rows {
		image := Image{Name: r.Name, Type: r.Type, ReadOnly: r.ReadOnly, Usage: r.Usage}
		if r.Modified != 0 {
			image.Modified = time.UnixMicro(int64(r.Modified))
		}
		object := h.conns.bus.Object(machinedName, r.Object)
		err := callError(property(ctx, object, machinedName+".Image", "Path", &image.Path), "ask for the path of image %s", r.Name)
		if errors.Is(err, errNoObject) {
			continue // removed since the list was made
		}
		if err != nil {
			return nil, err
		}
		images = append(images, image)
	}
	return images, nil
}

// ImageOSRelease returns the os-release fields of a registered image. machined
// mounts the image to read them, so the answer proves that it is registered
// and that systemd finds its partitions. It is [ErrNoImage] if no image is
// called name.
func (h *Host) ImageOSRelease(ctx context.Context, name string) (map[string]string, error) {
	var fields map[string]string
	err := h.conns.callMachined(ctx, "GetImageOSRelease", []any{name}, &fields)
	return fields, callError(err, "read os-release of image %s", name)
}

// RemoveImage deletes a registered image, and with it the settings file that
// machined associates with its name. It is [ErrNoImage] if there is none and
// [ErrBusy] while the image is in use.
func (h *Host) RemoveImage(ctx context.Context, name string) error {
	err := h.conns.callMachined(ctx, "RemoveImage", []any{name})
	return callError(err, "remove image %s", name)
}
