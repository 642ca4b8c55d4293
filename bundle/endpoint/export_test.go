package endpoint

// For tests of what a refused certificate looks like.
var (
	PresentedSVID = presentedSVID
	PresentedWeb  = presentedWeb
	OtherHost     = otherHost
)
