# The name by which adapters import the kit, for type checkers.
from tests.conformance.adapters import Adapter as Adapter
from tests.conformance.adapters import Address as Address
from tests.conformance.adapters import Deferred as Deferred
from tests.conformance.adapters import Direct as Direct
from tests.conformance.adapters import Early as Early
from tests.conformance.adapters import Message as Message
from tests.conformance.adapters import Options as Options
from tests.conformance.adapters import OwnName as OwnName
from tests.conformance.adapters import Passage as Passage
from tests.conformance.adapters import Place as Place
from tests.conformance.adapters import Program as Program
from tests.conformance.adapters import Rewriter as Rewriter
