package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
)

// client makes requests as they should be made. A server that does not answer is given up.
// A body comes as it is, or parts of it would be parts of something else. It goes where it
// is sent, but never from https to what is not.
func (f *Fetcher) client() *http.Client {
	f.once.Do(func() { f.http = f.newClient() })
	return f.http
}

func (f *Fetcher) newClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy, t.DisableCompression, t.ResponseHeaderTimeout = f.Proxy, true, silence
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return final{errors.New("it leads on and on")}
		}
		if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return final{fmt.Errorf("it leads on to %s, which is not encrypted", r.URL.Redacted())}
		}
		return nil
	}}
}

// openHTTP opens an address: the end of the file alone, if it still has the mark. That is
// the address, and the ETag or the time of the last change (RFC 9110, 13.1.5).
func (f *Fetcher) openHTTP(address string) opener {
	return func(ctx context.Context, have int64, mark string) (*answer, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, final{err}
		}
		if validator, ok := strings.CutPrefix(mark, address+"\n"); ok && have > 0 && validator != "" {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
			r.Header.Set("If-Range", validator)
		}
		h, err := f.client().Do(r)
		if err != nil {
			return nil, unreachable(err)
		}
		a := &answer{body: h.Body, total: h.ContentLength, mark: address + "\n" + validatorOf(h.Header)}
		switch h.StatusCode {
		case http.StatusOK:
			return a, nil
		case http.StatusPartialContent:
			part, last := h.Header.Get("Content-Range"), int64(0)
			_, err := fmt.Sscanf(part, "bytes %d-%d/%d", &a.at, &last, &a.total)
			if err == nil && a.at == have && a.total == last+1 {
				return a, nil
			}
			err = final{badAnswer("it gives the part %q of the file, and was asked for all from byte %d on", part, have)}
			return nil, errors.Join(err, h.Body.Close())
		case http.StatusRequestedRangeNotSatisfiable:
			if r.Header.Get("Range") != "" { // there is more of it here than there
				h.Body.Close()
				return f.openHTTP(address)(ctx, 0, "")
			}
		}
		return nil, errors.Join(refused(h), h.Body.Close())
	}
}

// Shown is a URL as people may see it, and as it may be kept: what is behind its path can be
// a secret by which it was given away for some time, and before its host a password.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// validatorOf is what says that a file is still the same, "" if nothing does. A weak one
// says that it means the same, not that its bytes are.
func validatorOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

func badAnswer(text string, args ...any) error {
	return fault.New(fault.Host, "", "the server: "+text, args...)
}

// refused is the error of an answer that is no file. What may be otherwise in a moment is
// not final.
func refused(h *http.Response) error {
	const mend = "see whether the address is right"
	switch code := h.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		return final{fault.New(fault.NotFound, mend, "the server says %s", h.Status)}
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fault.New(fault.Host, "try again later", "the server says %s", h.Status)
	}
	return final{fault.New(fault.Host, mend, "the server says %s", h.Status)}
}

// unreachable is the error of a request that had no answer.
func unreachable(err error) error {
	wrapped := fault.New(fault.Host, "see whether the address is right, and the network is there", "%w", err)
	var certificate *tls.CertificateVerificationError
	var name *net.DNSError
	if errors.As(err, &certificate) || errors.As(err, &name) && name.IsNotFound {
		return final{wrapped}
	}
	return wrapped
}

// text fetches a short text, of which no more is taken than most bytes.
func (f *Fetcher) text(ctx context.Context, address string, most int64) (b []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, silence, errors.New("it did not come in a minute"))
	defer cancel()
	err = f.persist(ctx, func() (bool, error) {
		a, err := f.openHTTP(address)(ctx, 0, "")
		if err != nil {
			return false, err
		}
		defer a.body.Close()
		b, err = io.ReadAll(io.LimitReader(a.body, most+1))
		return false, err
	})
	if err == nil && int64(len(b)) > most {
		err = badAnswer("it gives more than %d bytes", most)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", Shown(address), err)
	}
	return b, nil
}
