// SPDX-License-Identifier: Apache-2.0
#include "common/long_tale.h"

namespace examples {

const char *const long_tale =
    R"(The Clockmaker of the Salt Marsh

Long ago, in a town at the edge of a salt marsh, there lived a clockmaker whose name was Ansel. He had no wife and no children, but he had forty clocks, and he knew the voice of each of them. In the morning he wound them one after the other, and while he wound them he talked to them as another man talks to his cattle. The people of the town thought him a little mad, but they brought him their watches all the same, for there was nobody in seven counties who could mend a watch so well.

Now the town had a great tower, and in the tower hung a bell that was called Old Margaret. Old Margaret rang every hour, and by her voice the fishermen knew when the tide would turn, and the marsh women knew when they must leave the mud flats and come home with their baskets. For the sea came over that marsh faster than a horse can run, and whoever did not listen to the bell was drowned.

One autumn the bell fell silent. The mayor sent two carpenters up the tower, and they came down again and said that the bell was whole and the rope was whole and the beam was whole, and that they did not understand it. Then the mayor sent the blacksmith, and the blacksmith struck the bell with his hammer, and it gave no more sound than a loaf of bread. "She is bewitched," said the blacksmith, and he went home and locked his door.

That very week three marsh women did not come home, because no bell had told them of the tide. So the mayor went to the clockmaker, and took off his hat, and said, "Ansel, you know everything that ticks and rings. Go up and find out what ails Old Margaret, and I will give you a hundred silver pieces and the house beside the mill."

"I do not want the house beside the mill," said Ansel, "for it is damp, and damp is bad for clocks. But I will go up."

He took a lantern and a piece of cheese and a small brass hammer, and he climbed the three hundred and twelve steps of the tower. At the top he sat down beside the bell and waited. When midnight came, and no bell rang, he heard somebody weeping. It was a thin sound, like wind in a keyhole, and it came out of the bell itself.

"Who is there?" asked the clockmaker.

"I am the voice of the bell," said the weeping. "The Heron King has stolen my tongue, and without a tongue I cannot speak. He has carried it to his palace under the marsh, and he has hung it about the neck of his youngest daughter, because she was born dumb, and he hoped that it would speak for her."

"And does it speak for her?" asked Ansel.

"It does not," said the voice. "A tongue of bronze can only tell the hour. But he will not give it back, for he loves her, and he is ashamed."

Then Ansel ate his cheese, because it is not good to think when one is hungry. When he had eaten, he went down the three hundred and twelve steps, and went home, and took from the shelf the smallest of his forty clocks. It was no larger than a walnut, and it had been made by his grandfather, and inside it sat a silver bird that sang at noon. He wrapped it in a blue handkerchief and put it into his pocket, and at low tide he walked out into the marsh.

He had not gone far when he met an eel that was caught in a puddle. "Clockmaker," said the eel, "carry me to deep water, and I will not forget it." Ansel carried the eel to deep water. A little farther on he met a crab whose claw was stuck between two stones. "Clockmaker," said the crab, "lift the stone, and I will not forget it." Ansel lifted the stone. And still farther on he met an old grey goose with a broken wing. "Clockmaker," said the goose, "bind my wing, and I will not forget it." Ansel tore a strip from his shirt and bound the wing of the goose, and then he went on, and his shirt was cold.

In the middle of the marsh there was a pool as black as ink, and beside the pool stood a heron upon one leg. "What do you want here?" asked the heron. "I want to speak with the king," said Ansel. "Nobody speaks with the king," said the heron, "unless he first brings the ring that the old queen lost, and it lies at the bottom of this pool." The clockmaker looked into the pool and saw nothing but his own face. But the eel put up her head out of the water, and in her mouth was the ring. "I have not forgotten," said the eel.

So the heron led him down a stair of woven reeds, and there was a door of whalebone. "What do you want here?" asked the doorkeeper. "I want to speak with the king," said Ansel. "The door has been locked since the old queen died," said the doorkeeper, "and nobody can turn the key, for the lock is full of sand." But the crab came sideways out of the wall, and with her claw she picked the sand out of the lock, grain after grain, until the key turned. "I have not forgotten," said the crab.

Behind the door sat the Heron King upon a throne of driftwood, with a crown of shells upon his head, and beside him stood his youngest daughter. She was pale and beautiful, and about her neck, upon a chain, hung the tongue of the bell, so heavy that she could hardly lift her head.

"I know why you have come," said the king, "and I will not give it to you. My daughter has never spoken a word, and I have sworn that she shall have a voice, though all the bells of the world fall silent."

"Lord King," said the clockmaker, "a voice that is borrowed tells only what its owner would tell. Let me show you another thing." And he took the blue handkerchief out of his pocket, and unfolded it, and held up the little clock. It was just noon in the world above. The lid sprang open, and the silver bird lifted its wings and sang.

The king's daughter had never heard a song, for herons do not sing. She put out her hand, and the bird hopped upon her finger, and sang its song again, and at the third time she opened her mouth and sang with it. She had not been dumb at all. Nobody had ever given her anything to say.

Then the Heron King wept, and his tears ran down among the shells. He took the chain from his daughter's neck with his own hands, and gave the tongue of the bell to the clockmaker. "Ask for whatever you will," said the king. "I ask that you will keep the tide from the marsh women for as long as it takes to hang this tongue again," said Ansel, "and I ask for the three who did not come home, if they are with you." "They are in my kitchen," said the king, "and they complain about the fish. Take them."

So the clockmaker went up the stair of reeds with the three marsh women behind him. But the tongue of the bell was heavy, and the way was long, and the sea cannot be held for ever. They were still far from the town when they heard the water coming, and it came faster than a horse can run. Then there was a sound of wings, and it was the old grey goose, and with her came all the geese of the north. They took hold of the clockmaker and the three women by their clothes, and they carried them over the flood and set them down upon the steps of the tower. "I have not forgotten," said the goose.

Ansel climbed the three hundred and twelve steps once more, and he hung the tongue in the bell with his small brass hammer. And when the hour came, Old Margaret spoke, so loud and so glad that the windows rattled as far as the mill, and in the whole town there was nobody who did not come out into the street.

The mayor counted a hundred silver pieces into the clockmaker's hand. Ansel bought a new shirt, because the old one was torn, and he gave the rest to the three marsh women, so that they need not go out upon the mud in winter. The house beside the mill he did not take, for it was damp.

But the little clock stayed with the king's daughter. And if you stand upon the wall of that town at noon, when the tide is low and the wind comes from the marsh, you may hear two voices singing, one of silver and one that is not; and then the bell strikes twelve, and everybody goes in to dinner.
)";

std::vector<std::string> long_tale_questions() {
  return {"What was the name of the clockmaker?",       "How many clocks did he have?",
          "What was the bell in the tower called?",     "Who had stolen the tongue of the bell?",
          "How many steps did the tower have?",         "What did the eel bring out of the pool?",
          "How was the door of whalebone opened?",      "Why had the king's daughter never spoken?",
          "Who carried the clockmaker over the flood?", "What did Ansel buy with the silver?"};
}

}  // namespace examples
