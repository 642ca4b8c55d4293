package publish

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// maxName is the longest name that common file systems accept. That of a trust domain alone has up to 255 bytes.
const maxName = 255

// Object is a file, or an object of a store, with bundles in a format.
type Object struct {
	Name        string
	ContentType string
	Body        []byte
}

// Objects returns bundles in formats, by name. A bundle that has nothing to write in a format has no object in it. What
// cannot be written is left out, and named by the error, so that no domain affects another one.
func Objects(bundles []*bundle.Bundle, formats []bundle.Format) (all []Object, invalid error) {
	add := func(f bundle.Format, name string, body []byte, err error) {
		switch {
		case err != nil:
			invalid = errors.Join(invalid, err)
		case len(name) > maxName:
			invalid = errors.Join(invalid, fmt.Errorf(
				"the name of %s… has %d bytes, at most %d are allowed: use the bundle map",
				name[:32],
				len(name),
				maxName,
			))
		default:
			all = append(all, Object{name, f.ContentType(), body})
		}
	}
	for _, f := range formats {
		if f == bundle.FormatMap {
			body, err := bundle.MarshalMap(bundles)
			add(f, f.FileName(spiffeid.TrustDomain{}), body, err)
			continue
		}
		for _, b := range bundles {
			if f.Has(b) {
				body, err := f.Marshal(b)
				add(f, f.FileName(b.TrustDomain()), body, err)
			}
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
	return all, invalid
}
