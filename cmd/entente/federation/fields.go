package federation

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

var bootstrapInput = cli.Input{
	Name:   "--bootstrap",
	Remedy: "name the peer's SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it there",
}

// field is one flag of 'create' and 'update' with the field of a relationship that it sets.
type field struct {
	flag string
	// set writes the value of the flag into a relationship, and returns the paths for an update mask.
	set func(to *ententev1.Relationship) (paths []string, err error)
}

// fields are the flags of one command line, in the order in which they are applied. Their names and helps are options
// of the fields in the API.
type fields struct {
	env   *cli.Env
	cmd   *cobra.Command
	flags *pflag.FlagSet
	list  []field
	// bootstrapFile is not a field of the relationship.
	bootstrapFile string
}

// addFields adds the flags to a command.
func addFields(env *cli.Env, cmd *cobra.Command) *fields {
	f := &fields{env: env, cmd: cmd, flags: cmd.Flags()}
	f.flags.StringVar(&f.bootstrapFile, "bootstrap", "",
		"the first SPIFFE bundle document, from a trusted source ('-' for standard input)")
	relationship := (*ententev1.Relationship)(nil).ProtoReflect().Descriptor().Fields()
	for i := range relationship.Len() {
		d := relationship.Get(i)
		switch setting := settingOf(d); {
		case d.Name() == "url":
			f.addURLs(setting)
		case d.Name() == "authority_kinds":
			f.addKinds(setting)
		case d.Name() == "peer":
			f.addPeer(setting)
		case d.Name() == "hub":
			f.addHub()
		case setting.GetFlag() != "":
			f.addValue(d, setting)
		}
	}
	return f
}

// settingOf returns the flag and the help of a field that clients set, or nil.
func settingOf(d protoreflect.FieldDescriptor) *ententev1.Setting {
	setting, _ := proto.GetExtension(d.Options(), ententev1.E_Setting).(*ententev1.Setting)
	return setting
}

// partOf returns the setting of a field of a message.
func partOf(m proto.Message, name protoreflect.Name) *ententev1.Setting {
	return settingOf(m.ProtoReflect().Descriptor().Fields().ByName(name))
}

func (f *fields) add(flag string, set func(to *ententev1.Relationship) ([]string, error)) {
	f.list = append(f.list, field{flag, set})
}

// addValue adds the flag of a field with a single value. An empty value clears the field, for which the server has a
// default. Bytes are the content of a file.
func (f *fields) addValue(d protoreflect.FieldDescriptor, setting *ententev1.Setting) {
	flag, help := setting.GetFlag(), setting.GetHelp()
	set := func(value func() protoreflect.Value) {
		f.add(flag, func(to *ententev1.Relationship) ([]string, error) {
			if v := value(); v.IsValid() {
				to.ProtoReflect().Set(d, v)
			}
			return []string{string(d.Name())}, nil
		})
	}
	switch d.Kind() {
	case protoreflect.BoolKind:
		b := f.flags.Bool(flag, false, help)
		set(func() protoreflect.Value { return protoreflect.ValueOfBool(*b) })
	case protoreflect.StringKind:
		s := f.flags.String(flag, "", help)
		set(func() protoreflect.Value { return protoreflect.ValueOfString(*s) })
	case protoreflect.Uint32Kind:
		n := f.flags.Uint32(flag, 0, help)
		set(func() protoreflect.Value { return protoreflect.ValueOfUint32(*n) })
	case protoreflect.EnumKind:
		e := &cli.EnumFlag{Of: d.Enum()}
		f.flags.Var(e, flag, help)
		set(func() protoreflect.Value { return protoreflect.ValueOfEnum(e.Number) })
	case protoreflect.BytesKind:
		f.addFile(d, setting)
	default: // google.protobuf.Duration: there is no other message with a flag of its own
		duration := f.flags.Duration(flag, 0, help)
		set(func() (v protoreflect.Value) {
			if *duration != 0 {
				v = protoreflect.ValueOfMessage(durationpb.New(*duration).ProtoReflect())
			}
			return v
		})
	}
}

func (f *fields) addFile(d protoreflect.FieldDescriptor, setting *ententev1.Setting) {
	name := f.flags.String(setting.GetFlag(), "", setting.GetHelp())
	input := cli.Input{Name: "--" + setting.GetFlag(), Remedy: setting.GetFileRemedy()}
	f.add(setting.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
		if *name == "" {
			return []string{string(d.Name())}, nil
		}
		content, err := f.env.ReadFile(input, *name)
		to.ProtoReflect().Set(d, protoreflect.ValueOfBytes(content))
		return []string{string(d.Name())}, err
	})
}

// given reports whether any of the flags is given.
func (f *fields) given() bool {
	for _, x := range f.list {
		if f.flags.Changed(x.flag) {
			return true
		}
	}
	return f.flags.Changed("bootstrap")
}

// apply sets the fields of the given flags. It returns the paths for an update mask, and the bootstrap bundle.
func (f *fields) apply(to *ententev1.Relationship) (paths []string, bootstrap []byte, err error) {
	for _, x := range f.list {
		if !f.flags.Changed(x.flag) {
			continue
		}
		set, err := x.set(to)
		if err != nil {
			return nil, nil, err
		}
		paths = append(paths, set...)
	}
	if f.flags.Changed("bootstrap") {
		bootstrap, err = f.env.ReadFile(bootstrapInput, f.bootstrapFile)
	}
	return paths, bootstrap, err
}

// addURLs adds the flag for the endpoints: the first URL and the further ones are two fields.
func (f *fields) addURLs(setting *ententev1.Setting) {
	urls := f.flags.StringArray(setting.GetFlag(), nil, setting.GetHelp())
	f.add(setting.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
		to.Url, to.FallbackUrls = (*urls)[0], (*urls)[1:]
		return []string{"url", "fallback_urls"}, nil
	})
}

// addKinds adds the flag for the kinds of authorities, whose list is empty for both.
func (f *fields) addKinds(setting *ententev1.Setting) {
	kinds := f.flags.String(setting.GetFlag(), "", setting.GetHelp())
	cli.FlagValues(f.cmd, setting.GetFlag(), "x509", "jwt", "both")
	f.add(setting.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
		switch *kinds {
		case "x509":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_X509}
		case "jwt":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_JWT}
		case "both":
		default:
			return nil, cli.Usagef("--%s %q is not one of x509, jwt, both", setting.GetFlag(), *kinds)
		}
		return []string{"authority_kinds"}, nil
	})
}

// addPeer adds the flags for the stream to another Entente cluster. Its addresses alone can be changed.
func (f *fields) addPeer(setting *ententev1.Setting) {
	part := partOf(&ententev1.Peer{}, "addresses")
	home := f.flags.String(setting.GetFlag(), "", setting.GetHelp())
	addresses := f.flags.StringArray(part.GetFlag(), nil, part.GetHelp())
	f.add(setting.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
		if *home != "" {
			to.Peer = &ententev1.Peer{HomeTrustDomain: *home, Addresses: *addresses}
		}
		return []string{"peer"}, nil
	})
	f.add(part.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
		if f.flags.Changed(setting.GetFlag()) {
			return nil, nil // part of the peer
		}
		to.Peer = &ententev1.Peer{Addresses: *addresses}
		return []string{"peer.addresses"}, nil
	})
}

// addHub adds the flags for hubs. An empty --hub-include ends the hub as a whole.
func (f *fields) addHub() {
	none := func(list []string) bool { return len(list) == 1 && list[0] == "" }
	including := partOf(&ententev1.Hub{}, "include")
	include := f.flags.StringArray(including.GetFlag(), nil, including.GetHelp())
	noHub := func() bool { return f.flags.Changed(including.GetFlag()) && none(*include) }
	part := func(setting *ententev1.Setting, path string, set func(*ententev1.Hub)) {
		f.add(setting.GetFlag(), func(to *ententev1.Relationship) ([]string, error) {
			if noHub() { // which the field as a whole expresses
				return nil, nil
			}
			if to.Hub == nil {
				to.Hub = &ententev1.Hub{}
			}
			set(to.Hub)
			return []string{path}, nil
		})
	}
	part(including, "hub.include", func(h *ententev1.Hub) { h.Include = *include })
	excluding, at := partOf(&ententev1.Hub{}, "exclude"), partOf(&ententev1.Hub{}, "url")
	exclude := f.flags.StringArray(excluding.GetFlag(), nil, excluding.GetHelp())
	part(excluding, "hub.exclude", func(h *ententev1.Hub) {
		if !none(*exclude) {
			h.Exclude = *exclude
		}
	})
	url := f.flags.String(at.GetFlag(), "", at.GetHelp())
	part(at, "hub.url", func(h *ententev1.Hub) { h.Url = *url })
	f.add(including.GetFlag(), func(*ententev1.Relationship) ([]string, error) {
		if noHub() {
			return []string{"hub"}, nil
		}
		return nil, nil
	})
}
