package registry

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxReplacing is how many uploads a member accepts at a time; others wait.
	maxReplacing = 2
	// maxInOneCommand is the number of changes of instances, of 64 bytes each, above which a replacement certainly
	// exceeds a command.
	maxInOneCommand = 8192
)

// Replacer replaces sets of instances as a whole: those that callers upload, and those that other clusters export.
type Replacer struct {
	store     *raftstore.Store
	catalog   *Catalog
	collector *Collector
	now       func() time.Time
	// slots bounds the uploads at a time.
	slots chan struct{}
}

func newReplacer(c Config, catalog *Catalog, collector *Collector) *Replacer {
	return &Replacer{
		store: c.Store, catalog: catalog, collector: collector, now: c.Now, slots: make(chan struct{}, maxReplacing),
	}
}

// ReplaceInstances makes the uploaded instances exactly those of a service, or of a lease. If one instance is rejected,
// nothing is replaced.
func (p *Replacer) ReplaceInstances(stream ententev1.RoutingService_ReplaceInstancesServer) error {
	ctx := stream.Context()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return raftstore.StatusError(ctx.Err())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	u, err := p.newUpload(ctx, first.GetTarget())
	if err != nil {
		return raftstore.StatusError(err)
	}
	for m := first; ; {
		if err := u.add(ctx, m.GetInstances()); err != nil {
			return err
		}
		if m, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if m.GetTarget() != nil {
			return status.Error(codes.InvalidArgument, "only the first message has a target")
		}
	}
	if err := u.rejection(); err != nil {
		return err
	}
	response, err := u.run(ctx)
	if err != nil {
		return raftstore.StatusError(err)
	}
	return stream.SendAndClose(response)
}

// ReplaceImported makes the given instances exactly those of services that were imported from a trust domain. Service,
// lease, origin and time of registration of the instances are set. The deciding transaction calls commit first, whose
// error aborts it.
func (p *Replacer) ReplaceImported(
	ctx context.Context, from string, services map[string][]Instance, commit func(*raftstore.Tx) error,
) (raftstore.Revision, error) {
	r := &replacement{
		Replacer: p,
		lease:    originMark + from,
		wanted:   make(map[string]map[string]Instance),
		commit:   commit,
	}
	for service, list := range services {
		of := make(map[string]Instance, len(list))
		for _, i := range list {
			i.Service, i.Lease, i.Origin, i.Registered = service, r.lease, from, p.now()
			of[i.Address.String()] = i
		}
		r.wanted[service] = of
	}
	done, err := r.inPlace(ctx)
	if errors.Is(err, raftstore.ErrTooLarge) {
		done, err = r.staged(ctx, p.store.View(), nil)
	}
	return done.revision, err
}

// replacement is the replacement of the sets of one lease, or of one import.
type replacement struct {
	*Replacer
	// lease is that of the sets. wholeLease means that services without a wanted instance lose all that they have under
	// it.
	lease      string
	wholeLease bool
	wanted     map[string]map[string]Instance // by service, then address

	// check and permits apply to the replacement by a caller: whether the lease is still the caller's, and whether the
	// caller may add or remove instances of a service under a SPIFFE ID.
	check   func(raftstore.Reader) error
	permits map[permission]error
	// commit is set for imported instances. They have bounds of their own and no caller whose permission counts.
	commit func(*raftstore.Tx) error
}

// permission is what the caller of a replacement needs.
type permission struct {
	change  access.InstanceChange
	service string
	id      spiffeid.ID
}

// permitted checks each permission of the caller once.
func (r *replacement) permitted(ctx context.Context, reader raftstore.Reader, p permission) error {
	if r.commit != nil {
		return nil
	}
	err, known := r.permits[p]
	if !known {
		err = access.PermitsInstance(ctx, reader, p.change, p.service, p.id)
		r.permits[p] = err
	}
	return err
}

// begin starts a transaction that replaces instances. It fails if the lease or the import has ended.
func (r *replacement) begin(tx *raftstore.Tx) error {
	if r.commit != nil {
		return r.commit(tx)
	}
	if err := r.check(tx); err != nil {
		return err
	}
	return regained(tx, r.lease, func(service, address string) bool {
		_, has := r.wanted[service][address]
		return has
	})
}

// replaced counts what a replacement did.
type replaced struct {
	revision                raftstore.Revision
	added, changed, removed int
}

func (n *replaced) count(d difference) {
	n.added += d.added
	n.changed += len(d.put) - d.added
	n.removed += len(d.deleted)
}

// checkQuota returns an error if the instances do not fit.
func (r *replacement) checkQuota(reader raftstore.Reader, differences []difference) error {
	if r.commit != nil {
		return nil
	}
	more := make(map[string]int)
	for _, d := range differences {
		more[d.service] = d.added - len(d.deleted)
	}
	return r.catalog.checkQuota(reader, more)
}

// inPlace writes the differences in one transaction.
func (r *replacement) inPlace(ctx context.Context) (replaced, error) {
	var done replaced
	revision, err := r.store.Update(ctx, func(tx *raftstore.Tx) error {
		done = replaced{}
		if err := r.begin(tx); err != nil {
			return err
		}
		clear(r.permits) // the owners of a service may have changed since
		differences, err := r.compare(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.checkQuota(r.store.View(), differences); err != nil {
			return err
		}
		for _, d := range differences {
			done.count(d)
			if err := d.write(tx); err != nil {
				return err
			}
			if len(r.wanted[d.service]) > 0 {
				if err := d.index(tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	done.revision = revision
	return done, err
}

// keyBytes is about how much the key and the preconditions of an instance take of a command, besides its row.
func keyBytes(of set, i Instance) int {
	return 2*len(of.service) + len(of.lease) + len(i.Address.String()) + 96
}

// difference is how a set differs from what is wanted.
type difference struct {
	set
	generation string
	// put are the instances to write, without unchanged ones. deleted are addresses. added is how many of put are new.
	put     []Instance
	deleted []string
	added   int
}

func (d difference) empty() bool { return len(d.put)+len(d.deleted) == 0 }

// write changes the generation that counts.
func (d difference) write(tx *raftstore.Tx) error {
	for _, i := range d.put {
		if err := Instances.Put(tx, d.in(d.generation)+i.Address.String(), i.Row()); err != nil {
			return err
		}
	}
	for _, address := range d.deleted {
		if err := Instances.Delete(tx, d.in(d.generation)+address); err != nil {
			return err
		}
	}
	return nil
}

// countChanges returns the number of rows that differences write.
func countChanges(differences []difference) (n int) {
	for _, d := range differences {
		n += len(d.put) + len(d.deleted)
	}
	return n
}

// services lists, in order, the services whose sets are replaced.
func (r *replacement) services(reader raftstore.Reader) ([]string, error) {
	names := make(map[string]bool, len(r.wanted))
	for service := range r.wanted {
		names[service] = true
	}
	if r.wholeLease {
		present, err := servicesOf(reader, r.lease)
		if err != nil {
			return nil, err
		}
		for _, service := range present {
			names[service] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// compare returns the differences of all sets that are replaced, in order of service.
func (r *replacement) compare(ctx context.Context, reader raftstore.Reader) ([]difference, error) {
	services, err := r.services(reader)
	if err != nil {
		return nil, err
	}
	var differences []difference
	for _, service := range services {
		d := difference{set: set{service, r.lease}}
		var present map[string]Instance
		if d.generation, present, err = d.list(reader); err != nil {
			return nil, err
		}
		for address, old := range present {
			next, stays := r.wanted[service][address]
			if stays && old.sameAs(next) {
				continue
			}
			if err := r.permitted(ctx, reader, permission{access.RemovesInstance, service, old.ID}); err != nil {
				return nil, err
			}
			if !stays {
				d.deleted = append(d.deleted, address)
			}
		}
		for address, next := range r.wanted[service] {
			old, stays := present[address]
			if stays && old.sameAs(next) {
				next.generation = old.generation
				r.wanted[service][address] = next // for a set that is staged as a whole
				continue
			}
			next.generation = raftstore.NextGeneration(reader, old.generation)
			r.wanted[service][address] = next
			if err := r.permitted(ctx, reader, permission{access.RegistersInstance, service, next.ID}); err != nil {
				return nil, err
			}
			if !stays {
				d.added++
			}
			d.put = append(d.put, next)
		}
		differences = append(differences, d)
	}
	return differences, nil
}
