// The views, by the first word of their address (#/NAME/ID). Those with a `label` stand in the navigation, in this order.

export const VIEWS = {
  "": { label: "Now", file: "now" },
  map: { label: "Taste map", file: "map" },
  track: { label: "Track", file: "track" },
  user: { label: "User", file: "user" },
  try: { label: "Try it", file: "try" },
  "dead-letters": { label: "Dead letters", file: "dead-letters" },
  review: { label: "Review", file: "review" },
};
