package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/apierror"
)

// kind is a kind of resource: an API message, how Terraform shows it, and the calls on it.
type kind[M proto.Message] struct {
	// name follows entente_ in the name of the resource.
	name string
	text string
	// attributes are those fields of M that are part of the resource.
	attributes []attribute
	// besides are attributes that are no fields of M, such as what only a request has. The state keeps what was
	// planned.
	besides map[string]schema.Attribute
	// key are the attributes that tell one resource from another. Their values, with commas between, are the ID by
	// which it is imported.
	key []string

	// agreesOn is the attribute with the foreign trust domain that the resource agrees on, or "". A trust domain has
	// one kind of resource that does.
	agreesOn string
	// valid returns why the server would refuse a message, by the server's own rules, or nil. It is nil if the checks
	// of the attributes are all that there is.
	valid func(wanted M) error
	// kept returns why a plan may not delete the resource, and what to do, or "" if it may. It is nil if it always may.
	kept func(stored M) string

	create func(ctx context.Context, c *client.Client, wanted M, given given) (M, []string, error)
	// list returns every message, in the order of the API. It is nil if the kind has no list resource. It ends after an
	// error.
	list func(ctx context.Context, c *client.Client) iter.Seq2[M, error]
	// read gets a message that has the key. Its error is client.ErrNotFound if there is no such resource.
	read func(ctx context.Context, c *client.Client, key M) (M, error)
	// update changes the fields that the mask names. It is nil if every attribute replaces.
	update func(ctx context.Context, c *client.Client, wanted M, mask []string, given given) (M, []string, error)
	// remove deletes the resource, unless its etag is another one. That it is gone already is no error.
	remove func(ctx context.Context, c *client.Client, stored M, etag string) error
}

// given is what the configuration and the plan have besides the message.
type given struct {
	config tfsdk.Config
	// moved has the names of the attributes besides the message that differ from the state.
	moved map[string]bool
	// etag is that of the resource when Terraform read it last, or "". It is part of the resource's private state, so
	// that a plan is refused if somebody else has made a change since.
	etag string
}

// etagKey is the key of the etag in the private state.
const etagKey = "etag"

// private is the private state of a resource in a request.
type private interface {
	GetKey(ctx context.Context, key string) ([]byte, diag.Diagnostics)
}

// etagIn returns the etag in a private state, or "".
func etagIn(ctx context.Context, p private, d *diag.Diagnostics) (etag string) {
	value, problems := p.GetKey(ctx, etagKey)
	d.Append(problems...)
	if len(value) > 0 && json.Unmarshal(value, &etag) != nil {
		return ""
	}
	return etag
}

// etagOf returns the etag of a message, as the private state has it.
func etagOf(m proto.Message) []byte {
	field := m.ProtoReflect().Descriptor().Fields().ByName(etagKey)
	if field == nil { // what no call changes has none
		return []byte(`""`)
	}
	text, _ := json.Marshal(m.ProtoReflect().Get(field).String()) // a text always encodes
	return text
}

// text returns a text of the configuration, or "" if it has none.
func (g given) text(ctx context.Context, name string) (string, error) {
	var value *string
	if d := g.config.GetAttribute(ctx, path.Root(name), &value); d.HasError() || value == nil {
		return "", toError(d)
	}
	return *value, nil
}

// managed is the resource of a kind, as the framework calls it.
type managed[M proto.Message] struct {
	kind[M]
	bound []bound
	session
}

func resourceOf[M proto.Message](k kind[M]) func() resource.Resource {
	all := bind(empty[M]().ProtoReflect().Descriptor(), k.attributes)
	return func() resource.Resource { return &managed[M]{kind: k, bound: all} }
}

// empty returns a new message.
func empty[M proto.Message]() M {
	var none M
	return none.ProtoReflect().Type().New().Interface().(M)
}

// Metadata implements resource.Resource.
func (r *managed[M]) Metadata(_ context.Context, m resource.MetadataRequest, w *resource.MetadataResponse) {
	w.TypeName = m.ProviderTypeName + "_" + r.name
}

// Schema implements resource.Resource.
func (r *managed[M]) Schema(ctx context.Context, _ resource.SchemaRequest, w *resource.SchemaResponse) {
	of := schemas(r.bound)
	maps.Copy(of, r.besides)
	const limit = "How long %s may take, such as `30s` or `5m`. Default: `5m`."
	w.Schema = schema.Schema{
		MarkdownDescription: r.text, Attributes: of,
		Blocks: map[string]schema.Block{timeoutsName: timeouts.Block(ctx, timeouts.Opts{
			Create: true, Read: true, Update: r.update != nil, Delete: true,
			CreateDescription: fmt.Sprintf(limit, "the creation"), ReadDescription: fmt.Sprintf(limit, "a read"),
			UpdateDescription: fmt.Sprintf(limit, "an update"), DeleteDescription: fmt.Sprintf(limit, "the deletion"),
		})},
	}
}

// timeoutsName is the block that bounds the operations of a resource.
const timeoutsName = "timeouts"

// defaultTimeout is that of each operation. An election takes a few seconds.
const defaultTimeout = 5 * time.Minute

// timeoutOf returns the time for one operation, as timeouts.Value.Create does for a creation.
type timeoutOf func(timeouts.Value, context.Context, time.Duration) (time.Duration, diag.Diagnostics)

// limit returns a context that ends when the time for an operation is over. from is a plan or a state.
func limit(ctx context.Context, from interface {
	GetAttribute(ctx context.Context, at path.Path, to any) diag.Diagnostics
}, of timeoutOf, d *diag.Diagnostics) (context.Context, context.CancelFunc) {
	value := timeouts.Value{Object: types.ObjectNull(map[string]attr.Type{})}
	d.Append(from.GetAttribute(ctx, path.Root(timeoutsName), &value)...)
	limit, problems := of(value, ctx, defaultTimeout)
	d.Append(problems...)
	return context.WithTimeout(ctx, limit)
}

// IdentitySchema implements resource.ResourceWithIdentity.
func (r *managed[M]) IdentitySchema(
	_ context.Context, _ resource.IdentitySchemaRequest, w *resource.IdentitySchemaResponse,
) {
	of := map[string]identityschema.Attribute{}
	for _, b := range r.bound {
		if name := b.attribute.name; slices.Contains(r.key, name) {
			of[name] = identityschema.StringAttribute{
				RequiredForImport: b.mode == required, OptionalForImport: b.mode != required,
			}
		}
	}
	w.IdentitySchema = identityschema.Schema{Attributes: of}
}

// Configure implements resource.ResourceWithConfigure.
func (r *managed[M]) Configure(_ context.Context, c resource.ConfigureRequest, w *resource.ConfigureResponse) {
	r.session = configured(c.ProviderData, &w.Diagnostics)
}

// ImportState implements resource.ResourceWithImportState: by the ID, or by the identity.
func (r *managed[M]) ImportState(
	ctx context.Context, i resource.ImportStateRequest, w *resource.ImportStateResponse,
) {
	parts := strings.Split(i.ID, ",")
	if i.ID != "" && len(parts) != len(r.key) {
		w.Diagnostics.AddError("The import ID is malformed",
			fmt.Sprintf("%q has %d parts with commas between; write %s.", i.ID, len(parts),
				strings.ToUpper(strings.Join(r.key, ","))))
		return
	}
	for n, name := range r.key {
		var value types.String
		if i.ID == "" {
			w.Diagnostics.Append(i.Identity.GetAttribute(ctx, path.Root(name), &value)...)
		} else if parts[n] != "" {
			value = types.StringValue(parts[n])
		}
		w.Diagnostics.Append(w.State.SetAttribute(ctx, path.Root(name), value)...)
		w.Diagnostics.Append(w.Identity.SetAttribute(ctx, path.Root(name), value)...)
	}
}

// ValidateConfig implements resource.ResourceWithValidateConfig. What is not known yet is left to the server.
func (r *managed[M]) ValidateConfig(
	_ context.Context, q resource.ValidateConfigRequest, w *resource.ValidateConfigResponse,
) {
	if r.valid == nil {
		return
	}
	values := object(q.Config.Raw)
	for _, b := range r.bound {
		if !values[b.attribute.name].IsFullyKnown() {
			return
		}
	}
	wanted, err := r.message(q.Config.Raw)
	if err == nil {
		err = r.valid(wanted)
	}
	if err == nil {
		return
	}
	const summary = "The configuration is refused"
	if name, _, _ := strings.Cut(apierror.FieldOf(err), "."); name != "" {
		name, _, _ = strings.Cut(name, "[")
		w.Diagnostics.AddAttributeError(path.Root(name), summary, sentence(err.Error()))
		return
	}
	w.Diagnostics.AddError(summary, sentence(err.Error()))
}

// ModifyPlan implements resource.ResourceWithModifyPlan: it refuses a plan with two agreements on one trust domain, and
// one that deletes what is protected.
func (r *managed[M]) ModifyPlan(ctx context.Context, q resource.ModifyPlanRequest, w *resource.ModifyPlanResponse) {
	if r.agreesOn != "" && !q.Plan.Raw.IsNull() {
		var td types.String
		w.Diagnostics.Append(q.Plan.GetAttribute(ctx, path.Root(r.agreesOn), &td)...)
		if other := r.claim(td.ValueString(), r.name); other != "" {
			w.Diagnostics.AddAttributeError(path.Root(r.agreesOn),
				fmt.Sprintf("Could not plan two resources for the agreement with %s", td.ValueString()),
				fmt.Sprintf("The configuration has an %[1]s_%[2]s and an %[1]s_%[3]s for it. A trust domain has one "+
					"of %[1]s_federation_relationship, %[1]s_federation_invitation and %[1]s_federation_agreement: "+
					"remove the others.", providerName, other, r.name))
		}
	}
	if r.kept == nil || q.State.Raw.IsNull() {
		return
	}
	stored, err := r.message(q.State.Raw)
	if err != nil {
		w.Diagnostics.AddError("The state cannot be read", err.Error())
		return
	}
	if !q.Plan.Raw.IsNull() {
		planned, err := r.message(q.Plan.Raw)
		if err == nil && slices.Equal(r.keyOf(planned), r.keyOf(stored)) {
			return
		}
	}
	if why := r.kept(stored); why != "" {
		w.Diagnostics.AddError(fmt.Sprintf("Could not plan to delete %s, because it is protected", r.called(stored)),
			why)
	}
}

// Create implements resource.Resource.
func (r *managed[M]) Create(ctx context.Context, c resource.CreateRequest, w *resource.CreateResponse) {
	wanted, err := r.message(c.Plan.Raw)
	if err != nil {
		w.Diagnostics.AddError("The plan cannot be read", err.Error())
		return
	}
	ctx, cancel := limit(ctx, c.Plan, timeouts.Value.Create, &w.Diagnostics)
	defer cancel()
	var made M
	var warnings []string
	err = persist(ctx, func() (err error) {
		made, warnings, err = r.create(ctx, r.client, wanted, given{config: c.Config})
		return err
	})
	if errors.Is(err, client.ErrAlreadyExists) || errors.Is(err, client.ErrEtagMismatch) {
		w.Diagnostics.AddError(fmt.Sprintf("Could not create %s, because it exists", r.called(wanted)),
			fmt.Sprintf("%s To manage it here, run terraform import %s_%s.NAME '%s'.", sentence(err.Error()),
				providerName, r.name, strings.Join(r.keyOf(wanted), ",")))
		return
	}
	if err != nil {
		report(&w.Diagnostics, fmt.Sprintf("Could not create %s", r.called(wanted)), err)
		return
	}
	warn(&w.Diagnostics, r.called(wanted), warnings)
	w.State.Raw = r.state(made, c.Plan.Raw)
	w.Diagnostics.Append(w.Private.SetKey(ctx, etagKey, etagOf(made))...)
	r.identify(ctx, w.State, w.Identity, &w.Diagnostics)
}

// Read implements resource.Resource.
func (r *managed[M]) Read(ctx context.Context, q resource.ReadRequest, w *resource.ReadResponse) {
	ctx, cancel := limit(ctx, q.State, timeouts.Value.Read, &w.Diagnostics)
	defer cancel()
	stored, err := r.message(q.State.Raw)
	if err != nil {
		w.Diagnostics.AddError("The state cannot be read", err.Error())
		return
	}
	var is M
	err = persist(ctx, func() (err error) {
		is, err = r.read(ctx, r.client, stored)
		return err
	})
	if errors.Is(err, client.ErrNotFound) {
		r.identify(ctx, q.State, w.Identity, &w.Diagnostics)
		w.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		report(&w.Diagnostics, fmt.Sprintf("Could not read %s", r.called(stored)), err)
		return
	}
	w.State.Raw = r.state(is, q.State.Raw)
	w.Diagnostics.Append(w.Private.SetKey(ctx, etagKey, etagOf(is))...)
	r.identify(ctx, w.State, w.Identity, &w.Diagnostics)
}

// Update implements resource.Resource.
func (r *managed[M]) Update(ctx context.Context, u resource.UpdateRequest, w *resource.UpdateResponse) {
	ctx, cancel := limit(ctx, u.Plan, timeouts.Value.Update, &w.Diagnostics)
	defer cancel()
	wanted, err := r.message(u.Plan.Raw)
	if err != nil {
		w.Diagnostics.AddError("The plan cannot be read", err.Error())
		return
	}
	was, err := r.message(u.State.Raw)
	if err != nil {
		w.Diagnostics.AddError("The state cannot be read", err.Error())
		return
	}
	moved := map[string]bool{}
	now, before := object(u.Plan.Raw), object(u.State.Raw)
	for name := range r.besides {
		if !now[name].Equal(before[name]) {
			moved[name] = true
		}
	}
	mask := r.mask(was, wanted)
	if len(mask) == 0 && len(moved) == 0 { // the timeouts alone
		w.State.Raw = u.Plan.Raw
		r.identify(ctx, w.State, w.Identity, &w.Diagnostics)
		return
	}
	with := given{config: u.Config, moved: moved, etag: etagIn(ctx, u.Private, &w.Diagnostics)}
	var is M
	var warnings []string
	err = persist(ctx, func() (err error) {
		is, warnings, err = r.update(ctx, r.client, wanted, mask, with)
		return err
	})
	if err != nil {
		report(&w.Diagnostics, fmt.Sprintf("Could not update %s", r.called(wanted)), err)
		return
	}
	warn(&w.Diagnostics, r.called(wanted), warnings)
	w.State.Raw = r.state(is, u.Plan.Raw)
	w.Diagnostics.Append(w.Private.SetKey(ctx, etagKey, etagOf(is))...)
	r.identify(ctx, w.State, w.Identity, &w.Diagnostics)
}

// Delete implements resource.Resource.
func (r *managed[M]) Delete(ctx context.Context, d resource.DeleteRequest, w *resource.DeleteResponse) {
	ctx, cancel := limit(ctx, d.State, timeouts.Value.Delete, &w.Diagnostics)
	defer cancel()
	stored, err := r.message(d.State.Raw)
	if err == nil {
		etag := etagIn(ctx, d.Private, &w.Diagnostics)
		err = persist(ctx, func() error { return r.remove(ctx, r.client, stored, etag) })
	}
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		report(&w.Diagnostics, fmt.Sprintf("Could not delete %s", r.called(stored)), err)
	}
}

// repeatAfter is the least pause before a call is repeated.
const repeatAfter = 200 * time.Millisecond

// persist repeats a call while the cluster elects a leader, starts, or is overloaded, until ctx ends. Such a call has
// changed nothing. It returns the last error of the call.
func persist(ctx context.Context, call func() error) error {
	for {
		err := call()
		if errors.Is(err, client.ErrUnknownOutcome) || !errors.Is(err, client.ErrNoLeader) &&
			!errors.Is(err, client.ErrStarting) && !errors.Is(err, client.ErrExhausted) {
			return err
		}
		pause := repeatAfter
		if of := (*client.Error)(nil); errors.As(err, &of) {
			pause = max(pause, of.RetryAfter())
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// message returns what a plan or a state has of the message.
func (r *managed[M]) message(raw tftypes.Value) (M, error) {
	m, values := empty[M](), object(raw)
	for _, b := range r.bound {
		if err := b.set(m.ProtoReflect(), values[b.attribute.name]); err != nil {
			return m, err
		}
	}
	return m, nil
}

// state returns a message as a state. What is no field of it stays as it is in near, the plan or the earlier state. So
// does a zero value that near spells out where the state would have null.
func (r *managed[M]) state(m M, near tftypes.Value) tftypes.Value {
	values := object(near)
	if near.IsNull() {
		for name, of := range near.Type().(tftypes.Object).AttributeTypes {
			values[name] = tftypes.NewValue(of, nil)
		}
	}
	for _, b := range r.bound {
		name := b.attribute.name
		value := b.value(m.ProtoReflect(), b.zeros())
		if planned := values[name]; value.IsNull() && planned.IsFullyKnown() && !planned.IsNull() {
			zero := empty[M]().ProtoReflect()
			if b.set(zero, planned) == nil && !zero.Has(b.field) {
				value = planned
			}
		}
		values[name] = value
	}
	return tftypes.NewValue(near.Type(), values)
}

// mask names the fields in which two messages differ.
func (r *managed[M]) mask(was, wanted M) (names []string) {
	for _, b := range r.bound {
		if b.mode != computed && !was.ProtoReflect().Get(b.field).Equal(wanted.ProtoReflect().Get(b.field)) {
			names = append(names, b.attribute.name)
		}
	}
	return names
}

// keyOf returns the values of the attributes that tell a resource from others.
func (r *managed[M]) keyOf(m M) []string {
	parts := make([]string, len(r.key))
	for i, name := range r.key {
		f := shape{field: m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))}
		_ = f.value(m.ProtoReflect(), true).As(&parts[i]) // every part of a key is a text
	}
	return parts
}

// called names a resource in a message to its user.
func (r *managed[M]) called(m M) string {
	parts := slices.DeleteFunc(r.keyOf(m), func(part string) bool { return part == "" })
	return strings.ReplaceAll(r.name, "_", " ") + " " + strings.Join(parts, ", ")
}

// identify sets the identity of a resource from its state.
func (r *managed[M]) identify(
	ctx context.Context, state tfsdk.State, identity *tfsdk.ResourceIdentity, d *diag.Diagnostics,
) {
	for _, name := range r.key {
		var value types.String
		d.Append(state.GetAttribute(ctx, path.Root(name), &value)...)
		d.Append(identity.SetAttribute(ctx, path.Root(name), value)...)
	}
}

// object returns the attributes of a plan or a state, in a map of the caller's own.
func object(raw tftypes.Value) map[string]tftypes.Value {
	var values map[string]tftypes.Value
	_ = raw.As(&values) // Terraform passes an object of the schema's type
	all := map[string]tftypes.Value{}
	maps.Copy(all, values)
	return all
}
