package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// header matches the names of the columns of a table.
var header = regexp.MustCompile(`^[A-Z0-9][A-Z0-9.:-]*( [A-Z0-9.:-]+)*( {2,}[A-Z0-9.:-]+( [A-Z0-9.:-]+)*)+$`)

// TestTablesFit runs every command that prints a table with columns against a member whose every text is as long as the
// API allows, and more: no line of a table has more than 120 characters.
func TestTablesFit(t *testing.T) {
	socket := longMember(t)
	printed := map[string]bool{}
	rules := filepath.Join(t.TempDir(), "rules.hcl")
	require.NoError(t, os.WriteFile(rules, []byte(`rule "web" { panic_threshold = 0 }`), 0o600))
	for command, tables := range map[string]int{
		"access list": 1, "agent list": 1, "agent token list": 1, "entry list": 1, "authority list": 1,
		"authority anchors":             1,
		"authority taint ID --yes":      1,
		"authority revoke ID --dry-run": 1, "bundle list": 1, "bundle history eu.example.org": 1, "cluster members": 1,
		"cluster join-token list":                                1,
		"debug bundle " + filepath.Join(t.TempDir(), "b.tar.gz"): 1,
		"cluster remove eu-1 --dry-run":                          1, "domain list": 1,
		"domain delete eu.example.org --dry-run": 1, "federation list": 1, "federation invitations": 1,
		"federation delete us.example.org --dry-run": 1, "hint web --locality eu": 1,
		"hint web --all-callers": 1, "rule list": 1, "rule put " + rules: 1, "service list": 1, "service show web": 1,
		"service leases": 1, "service exports": 1, "service imports": 1, "status": 4,
	} {
		t.Run(command, func(t *testing.T) {
			var out, errs bytes.Buffer
			env := &cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
				Getenv: func(string) string { return "" }}
			args := strings.Fields(strings.Replace(command, " ID", " "+longText("id"), 1))
			require.Zero(t, env.Run(t.Context(), rootCommand(env), append(args, "--socket", socket, "--timeout", "1m")),
				"%s", errs.String())
			lines := strings.Split(out.String(), "\n")
			found := 0
			for i, line := range lines {
				if !header.MatchString(line) {
					continue
				}
				found++
				printed[strings.Join(strings.Fields(line), " ")] = true
				for _, row := range lines[i : i+3] { // a note below a table may be longer
					require.LessOrEqual(t, utf8.RuneCountInString(row), 120, "%s", row)
				}
			}
			require.Equal(t, tables, found, "%s", out.String())
		})
	}
	require.Len(t, printed, tablesInSource(t), "a command with a table is missing here")
}

// tablesInSource returns how many tables with columns the commands have.
func tablesInSource(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		n += bytes.Count(source, []byte("t.Columns("))
		return err
	}))
	return n
}

// longMember serves every method of the API at a Unix socket, with responses whose fields are all set to long values.
func longMember(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "long") // the name of a socket is bounded
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	socket = filepath.Join(dir, "admin.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(stream)
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(
			protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")))
		if err != nil {
			return err
		}
		method := found.(protoreflect.MethodDescriptor)
		request, err := newMessage(method.Input())
		if err != nil {
			return err
		}
		if err := stream.RecvMsg(request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		response, err := newMessage(method.Output())
		if err != nil {
			return err
		}
		fill(response.ProtoReflect(), 0)
		return stream.SendMsg(response)
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return socket
}

func newMessage(d protoreflect.MessageDescriptor) (proto.Message, error) {
	typ, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return typ.New().Interface(), nil
}

// longText is the value of a text field: a name of 200 characters, in which there is a space if it is a sentence.
func longText(field protoreflect.Name) string {
	name := strings.Repeat(string(field)+".", 200/(len(field)+1))
	if strings.Contains(string(field), "detail") || strings.Contains(string(field), "error") {
		name = strings.ReplaceAll(name, ".", " ")
	}
	return strings.Trim(name, ". ")
}

// fill sets every field, lists to two elements. A page is the last one, and a simulation is one for all callers.
func fill(m protoreflect.Message, depth int) {
	const deepest = 6
	switch known := m.Interface().(type) {
	case *timestamppb.Timestamp:
		proto.Merge(known, timestamppb.New(time.Now().Add(-200*24*time.Hour)))
		return
	case *durationpb.Duration:
		proto.Merge(known, durationpb.New(123*time.Hour+45*time.Minute+6*time.Second))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		message := f.Message() != nil
		switch {
		case f.Name() == "next_page_token", f.FullName() == "entente.v1.SimulateHintResponse.hint",
			message && depth == deepest:
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(longText(f.Name())).MapKey(), scalar(f.MapValue()))
		case f.IsList() && message:
			for range 2 {
				fill(m.Mutable(f).List().AppendMutable().Message(), depth+1)
			}
		case f.IsList():
			for range 2 {
				m.Mutable(f).List().Append(scalar(f))
			}
		case message:
			fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(f))
		}
	}
}

// scalar returns a long value of a field.
func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		if f.FullName() == "entente.v1.Anchor.state" { // for 'authority approve'
			return protoreflect.ValueOfEnum(ententev1.AnchorState_ANCHOR_STATE_PENDING.Number())
		}
		values := f.Enum().Values()
		longest := values.Get(0)
		for i := range values.Len() {
			if len(values.Get(i).Name()) > len(longest.Name()) {
				longest = values.Get(i)
			}
		}
		return protoreflect.ValueOfEnum(longest.Number())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(longText(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(longText(f.Name())))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(math.MaxInt32)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(math.MaxUint32)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(math.MaxInt64)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(math.MaxUint64)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1.0 / 3)
	default:
		panic("no value for " + f.FullName())
	}
}
