package routing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// maxReplaced bounds what one call can upload, and maxUpload one message of it.
	maxReplaced = 100000
	maxUpload   = 4096
	// maxReplacing is how many uploads a member takes at a time; the others wait.
	maxReplacing = 2
	// namedErrors is how many of the instances that cannot be taken a refusal names.
	namedErrors = 5
	// surelyStaged is how many changes of instances fit into no command, of 64 bytes each.
	surelyStaged = 8192
	// maxReplacedServices keeps the transaction that switches all of them small enough for a command.
	maxReplacedServices = 1000
)

// ReplaceInstances makes the instances of a service, or all of a lease, exactly those that are sent. A set in which one
// instance cannot be taken is refused whole.
func (s *Server) ReplaceInstances(stream ententev1.RoutingService_ReplaceInstancesServer) error {
	ctx := stream.Context()
	select {
	case s.m.replacing <- struct{}{}:
		defer func() { <-s.m.replacing }()
	case <-ctx.Done():
		return raftstore.StatusError(ctx.Err())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r, err := s.m.newReplacement(ctx, first.GetTarget())
	if err != nil {
		return raftstore.StatusError(err)
	}
	for m := first; ; {
		if err := r.add(ctx, m.GetInstances()); err != nil {
			return err
		}
		if m, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if m.GetTarget() != nil {
			return status.Error(codes.InvalidArgument, "the target stands in the first message alone")
		}
	}
	if err := r.refused(); err != nil {
		return err
	}
	answer, err := r.run(ctx)
	if err != nil {
		return raftstore.StatusError(err)
	}
	return stream.SendAndClose(answer)
}

// replacement is a set on its way in.
type replacement struct {
	m       *Manager
	service string // empty: all of the lease
	lease   string // its ID
	secret  string
	caller  access.Caller

	received int
	wanted   map[string]map[string]Instance // by service, then address
	permits  map[spiffeid.ID]error
	errs     []string
	wrong    int

	// imported, of a set that came from another cluster, says within the transaction whether it is still to be stored, and
	// writes down that it was. Nobody's permission is asked for each of its instances.
	imported func(*raftstore.Tx) error
}

func (m *Manager) newReplacement(ctx context.Context, target *ententev1.ReplaceTarget) (*replacement, error) {
	r := &replacement{
		m: m, service: target.GetService(), secret: target.GetLease(), caller: access.CallerFrom(ctx),
		wanted: make(map[string]map[string]Instance), permits: make(map[spiffeid.ID]error),
	}
	switch {
	case r.service == "" && r.secret == "":
		return nil, status.Error(codes.InvalidArgument, "the first message has to say what is replaced: set target.service, or target.lease for all that a lease has, or both")
	case r.service != "":
		if err := plan.CheckServiceName(r.service); err != nil {
			return nil, invalid(err)
		}
		r.wanted[r.service] = make(map[string]Instance)
	}
	if r.secret != "" {
		view, err := m.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		if err != nil {
			return nil, err
		}
		row, err := holdable(view, r.secret, r.caller)
		if err != nil {
			return nil, err
		}
		r.lease = row.Key
	}
	return r, nil
}

// add takes one message. What is wrong with an instance is kept for the refusal; what is out of bounds ends the upload at once.
func (r *replacement) add(ctx context.Context, list []*ententev1.Instance) error {
	if len(list) > maxUpload {
		return status.Errorf(codes.InvalidArgument, "a message has %d instances, and %d are allowed: send the rest in further messages", len(list), maxUpload)
	}
	for _, m := range list {
		index := r.received
		if r.received++; r.received > maxReplaced {
			return status.Errorf(codes.ResourceExhausted, "the set has more than %d instances; replace it service by service", maxReplaced)
		}
		i, err := r.parse(ctx, m)
		if err != nil {
			if r.wrong++; r.wrong <= namedErrors {
				r.errs = append(r.errs, fmt.Sprintf("instance %d: %v", index, err))
			}
			continue
		}
		of := r.wanted[i.Service]
		if of == nil {
			if len(r.wanted) >= maxReplacedServices {
				return status.Errorf(codes.ResourceExhausted, "the set has more than %d services; replace it service by service", maxReplacedServices)
			}
			of = make(map[string]Instance)
			r.wanted[i.Service] = of
		}
		of[i.Address.String()] = i
	}
	return nil
}

func (r *replacement) parse(ctx context.Context, m *ententev1.Instance) (Instance, error) {
	i, err := ParseInstance(m)
	if err != nil {
		return i, err
	}
	if r.service != "" && i.Service != r.service {
		return i, fmt.Errorf("it is of service %s, and what is replaced is %s", i.Service, r.service)
	}
	if m.GetLease() != "" {
		return i, errors.New("it names a lease; the target says under which all stand")
	}
	if _, twice := r.wanted[i.Service][i.Address.String()]; twice {
		return i, fmt.Errorf("service %s has the address %s twice", i.Service, i.Address)
	}
	if err := r.permitted(ctx, i.ID); err != nil {
		return i, err
	}
	i.Lease, i.Registered = r.lease, r.m.now()
	return i, nil
}

// permitted asks once for each ID.
func (r *replacement) permitted(ctx context.Context, id spiffeid.ID) error {
	if r.imported != nil {
		return nil
	}
	err, known := r.permits[id]
	if !known {
		err = access.Permits(ctx, id)
		r.permits[id] = err
	}
	return err
}

func (r *replacement) refused() error {
	if r.wrong == 0 {
		return nil
	}
	text := strings.Join(r.errs, "; ")
	if more := r.wrong - len(r.errs); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return status.Errorf(codes.InvalidArgument, "nothing was replaced, because %d of %d instances cannot be taken: %s", r.wrong, r.received, text)
}

// run writes the differences in one transaction if they fit into one, and stages the sets that differ otherwise. Where so much is wanted that
// they may be too many, they are counted first: a transaction would compare all of it to find that out.
func (r *replacement) run(ctx context.Context) (*ententev1.ReplaceInstancesResponse, error) {
	var done replaced
	view := r.m.store.View()
	differences, err := []difference(nil), raftstore.ErrTooLarge
	if r.received > surelyStaged {
		var failed error
		if differences, failed = r.compare(ctx, view); failed != nil {
			return nil, failed
		}
	}
	if changes(differences) <= surelyStaged {
		done, err = r.inPlace(ctx)
		view, differences = r.m.store.View(), nil
	}
	if errors.Is(err, raftstore.ErrTooLarge) {
		done, err = r.staged(ctx, view, differences)
	}
	if err != nil {
		return nil, err
	}
	answer := &ententev1.ReplaceInstancesResponse{
		Revision: uint64(done.revision), Added: uint32(done.added), Changed: uint32(done.changed), Removed: uint32(done.removed),
	}
	for _, list := range r.wanted {
		answer.Instances += uint32(len(list))
		if len(list) > 0 {
			answer.Services++
		}
	}
	return answer, nil
}

// difference is what a set lacks of what is wanted.
type difference struct {
	set
	generation string
	// put are the instances to write; unchanged ones are not in it. deleted are addresses.
	put     []Instance
	deleted []string
	added   int
}

func (d difference) empty() bool { return len(d.put)+len(d.deleted) == 0 }

// changes counts the rows that differences ask to be written.
func changes(differences []difference) (n int) {
	for _, d := range differences {
		n += len(d.put) + len(d.deleted)
	}
	return n
}

// compare returns how each set that is concerned differs from what is wanted, in the state that reader shows, in order of service.
func (r *replacement) compare(ctx context.Context, reader raftstore.Reader) ([]difference, error) {
	services, err := r.services(reader)
	if err != nil {
		return nil, err
	}
	var out []difference
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
			if err := r.permitted(ctx, old.ID); err != nil {
				return nil, err
			}
			if !stays {
				d.deleted = append(d.deleted, address)
			}
		}
		for address, next := range r.wanted[service] {
			old, stays := present[address]
			if stays && old.sameAs(next) {
				continue
			}
			if !stays {
				d.added++
			}
			d.put = append(d.put, next)
		}
		out = append(out, d)
	}
	return out, nil
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

// room says whether what comes fits, after what goes.
func (r *replacement) room(reader raftstore.Reader, differences []difference) error {
	if r.imported != nil {
		return nil // it has bounds of its own
	}
	more := make(map[string]int)
	for _, d := range differences {
		more[d.service] = d.added - len(d.deleted)
	}
	return r.m.room(reader, more)
}

// inPlace writes the differences in one transaction.
func (r *replacement) inPlace(ctx context.Context) (replaced, error) {
	var done replaced
	revision, err := r.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		done = replaced{}
		if err := r.leaseStands(tx); err != nil {
			return err
		}
		differences, err := r.compare(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.room(r.m.store.View(), differences); err != nil {
			return err
		}
		for _, d := range differences {
			done.count(d)
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

// leaseStands makes the transaction fail when the lease, or the import, ends under way.
func (r *replacement) leaseStands(tx *raftstore.Tx) error {
	if r.imported != nil {
		return r.imported(tx)
	}
	if r.lease == "" {
		return nil
	}
	_, err := holdable(tx, r.secret, r.caller)
	return err
}

// keyBytes is about what a key and its conditions take up in a command besides the row.
func keyBytes(of set, address netip.AddrPort) int {
	return 2*len(of.service) + len(of.lease) + len(address.String()) + 96
}
